// The work of the benchmark `fleet` with the AWS SDK for Go v2: AssumeRole, then DescribeInstances, for every account.
//
// Each account has a client with its own cache of credentials, as the SDK documents it; all clients share one HTTP
// client, which keeps as many idle connections as accounts run at once. The program does a warm-up, reads the counts of
// the canned server, does the work, and prints its figures as JSON. benchmarks/_go.py builds and starts it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

var began = time.Now()

type usage struct {
	wall, cpu float64
}

// used returns the seconds since the start of the process, and the user and system time of its threads.
func used() usage {
	var counts syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &counts))
	cpu := time.Duration(counts.Utime.Nano() + counts.Stime.Nano())
	return usage{time.Since(began).Seconds(), cpu.Seconds()}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// peakMiB returns the highest resident set so far; ru_maxrss can be that of the parent.
func peakMiB() float64 {
	status, err := os.ReadFile("/proc/self/status")
	must(err)
	for _, line := range strings.Split(string(status), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			must(err)
			return kib / 1024
		}
	}
	return 0
}

func control(path string) json.RawMessage {
	url := "http://127.0.0.1:" + os.Getenv("BENCHMARK_CONTROL_PORT") + path
	answer, err := http.Post(url, "application/json", strings.NewReader(""))
	must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(err)
	return body
}

func ids(first, count int) []string {
	found := make([]string, count)
	for index := range found {
		found[index] = strconv.Itoa(200_000_000_000 + first + index)
	}
	return found
}

type work struct {
	config    aws.Config
	assume    *sts.Client
	role      string
	instances int
	atOnce    int
}

// one does the work for an account; an answer of another account or with another number of instances is an error.
func (w *work) one(ctx context.Context, account string) error {
	role := stscreds.NewAssumeRoleProvider(w.assume, "arn:aws:iam::"+account+":role/"+w.role)
	own := w.config.Copy()
	own.Credentials = aws.NewCredentialsCache(role)
	answer, err := ec2.NewFromConfig(own).DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	if err != nil {
		return err
	}
	count := 0
	for _, reservation := range answer.Reservations {
		if *reservation.OwnerId != account {
			return fmt.Errorf("the call was for %s, the answer is of %s", account, *reservation.OwnerId)
		}
		count += len(reservation.Instances)
	}
	if count != w.instances {
		return fmt.Errorf("%s has %d instances, the answer has %d", account, w.instances, count)
	}
	return nil
}

func (w *work) all(accounts []string) {
	waiting := make(chan string)
	var workers sync.WaitGroup
	for number := 0; number < w.atOnce; number++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for account := range waiting {
				must(w.one(context.Background(), account))
			}
		}()
	}
	for _, account := range accounts {
		waiting <- account
	}
	close(waiting)
	workers.Wait()
}

func main() {
	accounts := flag.Int("accounts", 100, "number of accounts")
	atOnce := flag.Int("at-once", 20, "number of accounts at once")
	instances := flag.Int("instances", 5, "number of instances in every answer")
	warmUp := flag.Int("warm-up", 20, "number of other accounts before the measurement")
	warmUpFrom := flag.Int("warm-up-from", 900_000_000, "number of the first of them")
	role := flag.String("role", "", "name of the role")
	flag.Parse()
	// One core, as an event loop has. On two, version 1.17.1 of the SDK fails with "use of closed network connection" in
	// one request of some thousands, while it reads a response.
	runtime.GOMAXPROCS(1)

	endpoint := func(service, region string, _ ...interface{}) (aws.Endpoint, error) {
		url := os.Getenv("AWS_ENDPOINT_URL_" + strings.ToUpper(service))
		return aws.Endpoint{URL: url, SigningRegion: region, HostnameImmutable: true}, nil
	}
	shared := awshttp.NewBuildableClient().WithTransportOptions(func(transport *http.Transport) {
		transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, *atOnce
	})
	loaded, err := config.LoadDefaultConfig(
		context.Background(),
		config.WithEndpointResolverWithOptions(aws.EndpointResolverWithOptionsFunc(endpoint)),
		config.WithHTTPClient(shared),
	)
	must(err)
	running := &work{loaded, sts.NewFromConfig(loaded), *role, *instances, *atOnce}

	running.all(ids(*warmUpFrom, *warmUp))
	ready, readyMiB := used(), peakMiB()
	runtime.GC()
	setUp := control("/__stats")
	before := control("/__reset")
	from := used()
	running.all(ids(1, *accounts))
	to := used()
	figures, err := json.Marshal(map[string]interface{}{
		"setup_seconds":      ready.wall,
		"setup_cpu_seconds":  ready.cpu,
		"setup_peak_rss_mib": readyMiB,
		"wall_seconds":       to.wall - from.wall,
		"cpu_seconds":        to.cpu - from.cpu,
		"peak_rss_mib":       peakMiB(),
		"set_up":             setUp,
		"before":             before,
		"after":              control("/__stats"),
		"versions":           map[string]string{"aws-sdk-go-v2": aws.SDKVersion, "go": runtime.Version()[2:]},
	})
	must(err)
	fmt.Println(string(figures))
}
