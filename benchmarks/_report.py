"""Report of a result as Markdown: tables, the promised ratios, and the figures in which asyncauth is not the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OURS = "asyncauth"


def number(value: float | None, unit: str = "") -> str:
    """Return a value with about three significant digits and separated thousands; a dash for None."""
    if value is None:
        return "-"
    magnitude = abs(value)
    digits = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 0.095 else 3
    return f"{value:,.{digits}f}{unit}" if value else f"0{unit}"


def count(value: float) -> str:
    """Return a count with separated thousands; a median of an even number of runs can end in one half."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns except the first are numbers, aligned right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def representative(fleet: Mapping[str, Any], size: int = 1_000) -> list[dict[str, Any]]:
    """Return one row per variant, lowest CPU first: at `size` accounts, or at the largest number below it."""
    best: dict[str, dict[str, Any]] = {}
    for row in fleet["rows"]:
        chosen = best.get(row["variant"])
        if row["accounts"] <= size and (chosen is None or row["accounts"] > chosen["accounts"]):
            best[row["variant"]] = row
    return sorted(best.values(), key=lambda row: row["cpu_ms_per_account"])


def times_ours(fleet: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """Return the CPU per account of a row as a multiple of asyncauth's at the same number of accounts."""
    for one in fleet["rows"]:
        if (one["variant"], one["accounts"]) == (OURS, row["accounts"]):
            return float(row["cpu_ms_per_account"] / one["cpu_ms_per_account"])
    return None


@dataclass(frozen=True, slots=True)
class Claim:
    """Promise about a figure: its text, the measured value, and its limit."""

    text: str
    measured: float
    limit: float
    at_most: bool = True

    @property
    def holds(self) -> bool:
        """Whether the measured value is within the limit."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


def claims(result: Mapping[str, Any]) -> list[Claim]:
    """Return the promises about figures that this result contains."""
    found: list[Claim] = []
    if speed := result.get("about", {}).get("server_requests_per_second"):
        # More than twice what the fastest client sends; with a slower server, the server would be measured.
        found.append(Claim("requests per second of the canned server's CPU", speed, 20_000, at_most=False))
    if fleet := result.get("fleet"):
        found += _fleet_claims(fleet)
    if login := result.get("login"):
        found += _login_claims(login)
    found += [
        Claim(f"start of {row['start']}, milliseconds", row["ms"], row["limit_ms"])
        for row in result.get("startup", {}).get("rows", ())
        if row["limit_ms"] is not None
    ]
    if micro := result.get("micro"):
        found += [
            Claim(text, micro[key], limit)
            for key, text, limit in (
                ("bind_us", "binding a client, microseconds", 20.0),
                ("bind_bytes", "a bound client, bytes", 2048.0),
                ("import_ratio", "CPU of `from asyncauth import SessionPool` against aiobotocore's import", 1.1),
            )
            if key in micro
        ]
    found += [
        Claim(f"a whole process with {row['accounts']} accounts against one stock client", row["times_stock"], 1.15)
        for row in result.get("short", {}).get("rows", ())
        if row["variant"] == OURS
    ]
    found += _engine_claims(result.get("engine", {}))
    for row in result.get("bigpage", {}).get("rows", ()):
        if row["variant"] == OURS:
            found.append(Claim("event-loop lag under big pages, p99, ms", row["lag_p99_ms"], 30.0))
            found.append(Claim("event-loop lag under big pages, worst, ms", row["lag_worst_ms"], 100.0))
    found += _store_claims(result.get("store", {}))
    for row in result.get("tls", {}).get("rows", ()):
        if row["variant"] == OURS:
            found += [
                Claim(f"TLS handshakes at {endpoint.upper()} per account at once", count / row["at_once"], 1.0)
                for endpoint, count in row["handshakes"].items()
            ]
    return found


def _store_claims(store: Mapping[str, Any]) -> list[Claim]:
    found = [
        Claim(f"rows into SQLite, {row['way']}, against plain executemany", row["share"], 0.7, at_most=False)
        for row in store.get("writes", ())
    ]
    for key, what in (("lag", "a sync"), ("metrics", "a page of 100,000 data points")):
        if row := store.get(key):
            found.append(Claim(f"event-loop lag under {what}, p99, ms", row["lag_p99_ms"], 30.0))
            found.append(Claim(f"event-loop lag under {what}, worst, ms", row["lag_worst_ms"], 150.0))
    if rows := store.get("memory"):
        few, many = rows
        text = f"peak RSS at {many['rows']:,} rows above that at {few['rows']:,}, MiB"
        found.append(Claim(text, many["peak_rss_mib"] - few["peak_rss_mib"], 40.0))
    if rows := store.get("large"):
        _, page, pages = rows
        text = f"peak RSS of a sync with {pages['instances']:,} instances an account above {page['instances']:,}, MiB"
        found.append(Claim(text, pages["peak_rss_mib"] - page["peak_rss_mib"], 40.0))
    return found


def _login_claims(login: Mapping[str, Any]) -> list[Claim]:
    ours = [row for row in login["rows"] if row["way"] == OURS]
    return [
        Claim(f"{text} after a forgotten login", max(row[key] for row in ours), 1.0)
        for key, text in (("messages", "messages"), ("portal_requests", "requests to the portal"))
        if ours
    ]


def _engine_claims(engine: Mapping[str, Any]) -> list[Claim]:
    found = []
    if (ratio := engine.get("cpu_ratio")) is not None:
        found.append(Claim("CPU of the busiest of two Dask workers against one process", ratio, 0.65))
        assumed = max(row["assume_role"] / row["accounts"] for row in engine["rows"])
        found.append(Claim("AssumeRole calls per account on two Dask workers", assumed, 1.0))
    if stream := engine.get("stream"):
        text = f"growth of the client while {stream['targets']:,} targets stream from workers, MiB"
        found.append(Claim(text, stream["rss_growth_mib"], 30.0))
    return found


def _fleet_claims(fleet: Mapping[str, Any]) -> list[Claim]:
    at_thousand = {row["variant"]: row for row in representative(fleet)}
    every = {(row["variant"], row["accounts"]): row for row in fleet["rows"]}
    if OURS not in at_thousand:
        return []
    ratios = {name: ratio for name, row in at_thousand.items() if (ratio := times_ours(fleet, row))}
    found = [
        Claim(f"CPU per account against {text}", 1 / ratios[name], limit)
        for name, text, limit in (("stock", "one stock client", 0.70), ("aiohttp", "aiohttp + botocore's signer", 2.5))
        if name in ratios
    ]
    found += [
        Claim(
            f"times less CPU than {at_thousand[name]['label']}, at {at_thousand[name]['accounts']:,} accounts",
            ratios[name],
            limit,
            at_most=False,
        )
        for name, limit in (("aioboto3", 100.0), ("botocove", 100.0), ("boto3_careful", 8.0))
        if name in ratios
    ]
    if (big := every.get((OURS, 10_000))) and (OURS, 1_000) in every:
        ratio = big["cpu_ms_per_account"] / every[OURS, 1_000]["cpu_ms_per_account"]
        found.append(Claim("CPU per account at 10,000 against 1,000", ratio, 1.1))
        found.append(Claim("peak RSS at 10,000 accounts, MiB", big["peak_rss_mib"], 300.0))
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """Return the whole result as one page."""
    about = result["about"]
    parts = [
        "# What one more account costs\n",
        (
            "Work per account: AssumeRole, then DescribeInstances (5 instances), against a canned server in a process "
            "of its own on loopback; set-up and warm-up are not counted. One run of `make bench`: compare its ratios, "
            "not its milliseconds with another machine's.\n"
        ),
        (
            f"{about['cores']} cores, Python {about['python']}, {about['platform']}; {about['when']}{_load(about)}"
            f"{'; a quick run: too short to quote' if about.get('quick') else ''}. "
            f"The server answers {number(about['server_requests_per_second'])} requests/s on a core.\n"
        ),
    ]
    if fleet := result.get("fleet"):
        live = {row["variant"]: row["kib_per_session"] for row in result.get("live", {}).get("rows", ())}
        parts += _fleet_parts(fleet, live) + _apart(fleet)
    for name, section_parts in _SECTION_PARTS.items():
        if section := result.get(name):
            parts += section_parts(section) + _apart(section)
    if judged := claims(result):
        parts += [
            "## What was promised\n",
            table(
                ["", "measured", "limit", "kept"],
                [
                    [
                        claim.text,
                        number(claim.measured),
                        f"{'at most' if claim.at_most else 'at least'} {number(claim.limit)}",
                        "yes" if claim.holds else "**no**",
                    ]
                    for claim in judged
                ],
            ),
        ]
    return "\n".join(parts)


def _load(about: Mapping[str, Any]) -> str:
    """Return the load of the machine before the run, if known: other work makes runs longer, but not their CPU time."""
    load = about.get("load_before")
    return f"; load average before the run {load:.2f}" if load is not None else ""


def _fleet_parts(fleet: Mapping[str, Any], live: Mapping[str, float]) -> list[str]:
    rows = representative(fleet)
    main = [
        [
            _label(row),
            f"{row['accounts']:,}",
            str(row["runs"]),
            f"{number(row['cpu_ms_per_account'])} ({' to '.join(number(one) for one in row['cpu_ms_spread'])})",
            number(times_ours(fleet, row)),
            number(row["accounts_per_second"]),
            number(row["peak_rss_mib"]),
            number(live.get(row["variant"])),
            number(row["loop_lag_p99_ms"]),
            count(row["assume_role"]),
            count(sum(row["connections"].values())),
            number(row["setup_seconds"]),
        ]
        for row in rows
    ]
    sizes = sorted({row["accounts"] for row in fleet["rows"]})
    by_size = {(row["variant"], row["accounts"]): row for row in fleet["rows"]}
    parts = [
        f"## At {max(row['accounts'] for row in rows):,} accounts, {fleet['at_once']} at once\n",
        table(
            [
                "how",
                "accounts",
                "runs",
                "CPU ms per account",
                "x asyncauth",
                "accounts/s",
                "peak RSS MiB",
                "KiB per live session",
                "loop lag p99 ms",
                "AssumeRole calls",
                "new connections",
                "set-up s",
            ],
            main,
        ),
        (
            "CPU is the median of the runs (lowest to highest). A row with fewer accounts stops there: more would take "
            "minutes for the same figure; `x asyncauth` divides by asyncauth's CPU at the row's own number of "
            "accounts. Over TLS each new connection is a handshake. Threads have no event loop, so no lag.\n"
        ),
    ]
    for key, title in (
        ("cpu_ms_per_account", "CPU ms per account"),
        ("accounts_per_second", "Accounts per second"),
        ("peak_rss_mib", "Peak RSS MiB"),
    ):
        sized = [
            [_label(row), *(_at(by_size.get((row["variant"], size)), row, size, key) for size in sizes)] for row in rows
        ]
        parts += [f"### {title}, by the number of accounts\n", table(["how", *(f"{size:,}" for size in sizes)], sized)]
    parts.append(f"{_versions(rows)}.\n")
    if better := _not_faster(rows) + _slower_at(fleet["rows"], rows):
        parts += ["### Where asyncauth is not the best\n", *better, ""]
    busy = max((row["server_busy"] for row in fleet["rows"]), default=0.0)
    parts.append(
        f"The server was never busier than {busy:.0%} of a core{'' if busy < 0.8 else ': **a bottleneck**'}.\n"
    )
    if fleet["problems"]:
        parts += [f"- {name}: {text.splitlines()[0]}" for name, text in fleet["problems"].items()] + [""]
    return parts


def _versions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the versions of all packages; both, if the two stacks differ."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for package, version in row.get("versions", {}).items():
            if package != "python" and version not in found.setdefault(package, []):
                found[package].append(version)
    return ", ".join(f"{package} {' and '.join(versions)}" for package, versions in sorted(found.items()))


def _label(row: Mapping[str, Any]) -> str:
    return f"**{row['label']}**" if row["variant"] == OURS else str(row["label"])


def _at(row: Mapping[str, Any] | None, of: Mapping[str, Any], size: int, key: str) -> str:
    if row is not None:
        return number(row[key])
    return "stops earlier" if size > of["largest"] else "-"


def _not_faster(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ours = next((row for row in rows if row["variant"] == OURS), None)
    if ours is None:
        return []
    found = []
    for key, text, unit, more_is_better in (
        ("cpu_ms_per_account", "CPU per account", " ms", False),
        ("accounts_per_second", "accounts per second", "/s", True),
        ("peak_rss_mib", "peak RSS", " MiB", False),
        ("setup_seconds", "set-up", " s", False),
        ("loop_lag_p99_ms", "event-loop lag p99", " ms", False),
    ):
        better = [
            f"{row['label']} {number(row[key], unit)}"
            for row in rows
            if row["variant"] not in {OURS, "asyncauth_older"}
            and row[key] is not None
            and (row[key] > ours[key] if more_is_better else row[key] < ours[key])
        ]
        if better:
            found.append(f"- {text}: {number(ours[key], unit)}; {'; '.join(better)}")
    return found


def _slower_at(every: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the variants with more accounts per second at the sizes that the main table does not show."""
    at = {row["accounts"] for row in shown if row["variant"] == OURS}
    found = []
    for size in sorted({row["accounts"] for row in every} - at):
        rows = [row for row in every if row["accounts"] == size]
        found += [
            line.replace("accounts per second", f"accounts per second at {size:,}", 1)
            for line in _not_faster(rows)
            if line.startswith("- accounts per second")
        ]
    return found


def _bigpage_parts(bigpage: Mapping[str, Any]) -> list[str]:
    return [
        f"## {bigpage['accounts']} pages of {bigpage['instances']:,} instances at once\n",
        f"Each page is {bigpage['page_bytes'] / 1e6:.1f} MB of XML. How late a coroutine that sleeps 1 ms wakes:\n",
        table(
            [
                "how",
                "runs",
                "lag p50 ms",
                "lag p99 ms",
                "lag worst ms",
                "CPU ms per page",
                "seconds in all",
                "peak RSS MiB",
            ],
            [
                [
                    _label(row),
                    str(row["runs"]),
                    *(
                        number(row[key])
                        for key in (
                            "lag_p50_ms",
                            "lag_p99_ms",
                            "lag_worst_ms",
                            "cpu_ms_per_page",
                            "wall_seconds",
                            "peak_rss_mib",
                        )
                    ),
                ]
                for row in bigpage["rows"]
            ],
        ),
    ]


def _store_parts(store: Mapping[str, Any]) -> list[str]:
    parts = [
        "## Into the SQLite store\n",
        (
            f"Instances of real size in scopes of {store['scope_rows']:,}, beside a writer that does nothing but "
            "`executemany` of the same rows, in turn. Both encode them as JSON; the third column is the plain writer "
            "without that time.\n"
        ),
    ]
    if rows := store.get("writes"):
        columns = {
            "store_per_second": "store, rows/s",
            "plain_per_second": "plain, rows/s",
            "encoded_per_second": "encoded before, rows/s",
            "share": "share",
            "scope_seconds": "seconds a scope",
            "commit_seconds": "its commit, seconds",
        }
        cells = [[row["way"], *(number(row[key]) for key in columns)] for row in rows]
        parts.append(table(["rows", *columns.values()], cells))
    keys = ("lag_p50_ms", "lag_p99_ms", "lag_worst_ms", "wall_seconds")
    lags: list[list[str]] = []
    lag, metrics = store.get("lag"), store.get("metrics")
    if lag:
        text = f"a sync of {lag['accounts']} pages of {lag['instances']:,} instances, {lag['at_once']} at once"
        lags.append([text, str(lag["runs"]), *(number(lag[key]) for key in keys)])
    if metrics:
        text = f"a sync of a page of {metrics['points']:,} data points"
        lags.append([text, str(metrics["runs"]), *(number(metrics[key]) for key in keys)])
    if lags:
        parts.append(table(["event loop during", "runs", "lag p50 ms", "lag p99 ms", "lag worst ms", "seconds"], lags))
    if lag:
        parts.append(
            f"The store takes {lag['store_share']:.0%} of the sync's CPU time. The lag of an idle loop was up to "
            f"{number(lag['idle_worst_ms'], ' ms')} in the same processes.\n"
        )
    sizes = [[f"{row['rows']:,} rows into the store", row] for row in store.get("memory", ())]
    sizes += [
        [f"a sync of {row['accounts']} accounts with {row['instances']:,} instances each", row]
        for row in store.get("large", ())
    ]
    if sizes:
        peaks = [[text, number(row["peak_rss_mib"]), number(row["wall_seconds"])] for text, row in sizes]
        parts.append(table(["memory", "peak RSS MiB", "seconds"], peaks))
    return parts


def _tls_parts(tls: Mapping[str, Any]) -> list[str]:
    return [
        f"## Over TLS, {tls['latency_ms']:g} ms of latency\n",
        table(
            [
                "how",
                "accounts",
                "runs",
                "at once",
                "most in flight STS",
                "most in flight EC2",
                "handshakes STS",
                "handshakes EC2",
                "CPU ms per account",
                "accounts/s",
            ],
            [
                [
                    _label(row),
                    f"{row['accounts']:,}",
                    str(row["runs"]),
                    str(row["at_once"]),
                    count(row["peak_in_flight"]["sts"]),
                    count(row["peak_in_flight"]["ec2"]),
                    count(row["handshakes"]["sts"]),
                    count(row["handshakes"]["ec2"]),
                    number(row["cpu_ms_per_account"]),
                    number(row["accounts_per_second"]),
                ]
                for row in tls["rows"]
            ],
        ),
    ]


def _micro_parts(micro: Mapping[str, Any]) -> list[str]:
    names = (
        ("bind_us", "bind a client, enter and leave it", " us"),
        ("bind_bytes", "what a bound client holds", " bytes"),
        ("credentials_hit_us", "`session.credentials()`, cached", " us"),
        ("session_hit_us", "`pool.session(account)`, cached", " us"),
        ("create_client_us", 'stock: `create_client("ec2")`, warm', " us"),
    )
    rows = [
        [text, number(micro[key] / 1000, " ms") if unit == " us" and micro[key] >= 1000 else number(micro[key], unit)]
        for key, text, unit in names
        if key in micro
    ]
    rows += [[f"`{statement}`", number(value, " ms")] for statement, value in micro.get("import_ms", {}).items()]
    return ["## Small things\n", table(["", ""], rows)]


def _login_parts(login: Mapping[str, Any]) -> list[str]:
    head = ["login", "how", "runs", "targets", "seconds", "CPU seconds", "messages", "requests to the portal"]
    rows = [
        [
            row["login"],
            f"**{row['label']}**" if row["way"] == OURS else row["label"],
            count(row["runs"]),
            count(row["targets"]),
            number(row["seconds"]),
            number(row["cpu_seconds"]),
            count(row["messages"]),
            count(row["portal_requests"]),
        ]
        for row in login["rows"]
    ]
    return [
        "## A forgotten login\n",
        "A profile of IAM Identity Center without a valid login. Every target has an outcome with the message.\n",
        table(head, rows),
    ]


def _startup_parts(section: Mapping[str, Any]) -> list[str]:
    head = ["start", "runs", "ms", "quartiles", "CPU ms"]
    rows = [
        [
            row["start"],
            count(row["runs"]),
            number(row["ms"]),
            " to ".join(number(one) for one in row["ms_quartiles"]),
            number(row["cpu_ms"]),
        ]
        for row in section["rows"]
    ]
    return [
        "## Start-up of the command line\n",
        "Medians of starts in turn. None of them imports botocore; the tests check that.\n",
        table(head, rows),
    ]


def _parquet_parts(parquet: Mapping[str, Any]) -> list[str]:
    head = [
        "store", "answers of AWS", "rows", "rows a second", "CPU microseconds a row", "MB on disk", "peak RSS, MiB",
        "at a quarter", "cold `count(*)`, s", "`group by type`, s", "one account, s",
    ]  # fmt: skip
    rows = [
        [
            f"**{row['label']}**" if row["store"] == "parquet" else row["label"],
            "kept" if row["raw"] else "no",
            count(row["rows"]),
            count(round(row["rows_per_second"])),
            number(row["cpu_seconds"] / row["rows"] * 1e6),
            number(row["bytes"] / 1e6),
            number(row["peak_rss_mib"]),
            number(row["early_rss_mib"]),
            *(number(row[f"{query}_seconds"]) for query in ("count", "group", "account")),
        ]
        for row in parquet["rows"]
    ]
    return [
        "## Parquet data set and SQLite\n",
        (
            "Instances in scopes of 1,000, the same in both stores. A cold query has a process of its own; its time "
            "contains the import of the library and the opening of the store. Memory is that of the writing process, "
            "at a quarter of the rows and at the end.\n"
        ),
        table(head, rows),
    ]


def _short_parts(short: Mapping[str, Any]) -> list[str]:
    head = ["how", "runs", "seconds", "x stock"]
    rows = [
        [_label(row), str(row["runs"]), number(row["seconds"]), number(row["times_stock"])] for row in short["rows"]
    ]
    return [f"## A whole process with {short['accounts']:,} accounts\n", table(head, rows)]


def _ablation_parts(ablation: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            f"`{row['switch']}`",
            number(row["saved_ms"]),
            " to ".join(number(one) for one in row["saved_ms_quartiles"]),
            f"{row['slower_without']} of {row['pairs']}",
        ]
        for row in sorted(ablation["rows"], key=lambda row: -row["saved_ms"])
    ]
    return [
        "## What each speed-up is worth\n",
        (
            f"CPU ms per account that asyncauth takes more without it, in paired runs of {ablation['accounts']:,} "
            f"accounts; with all of them an account takes {number(ablation['cpu_ms_per_account'])} ms.\n"
        ),
        table(["speed-up", "saved ms", "quartiles", "slower without"], rows),
    ]


def rates_table(rates: Mapping[str, Any]) -> str:
    """Return the simulated starts of the AssumeRole rate as a table."""
    rows = [
        [
            f"{row['service']}; {row['accounts']:,} accounts",
            row["start"],
            number(row["seconds"]),
            f"{row['throttled_share']:.1%}",
            "-" if row["neighbour_refused_share"] is None else f"{row['neighbour_refused_share']:.1%}",
        ]
        for row in sorted(rates["rows"], key=lambda row: row["accounts"])
    ]
    return table(["STS allows", "start", "seconds", "throttled", "neighbour throttled"], rows)


def sweep_table(sweep: Mapping[str, Any]) -> str:
    """Return the sweep as a table: accounts per second and loop lag by `max_at_once`, and the value to choose."""
    found = sweep["series"]
    by_count = [{point["max_at_once"]: point for point in one["points"]} for one in found]
    rows = [
        [
            f"{at_once:,} at once",
            *(
                number(points[at_once][key]) if at_once in points else "-"
                for key in ("accounts_per_second", "loop_lag_p99_ms")
                for points in by_count
            ),
        ]
        for at_once in sorted({at_once for points in by_count for at_once in points})
    ]
    no_lags = [""] * len(found)
    rows.append(["90 % of the best from", *(f"{one['enough_at_once']:,} at once" for one in found), *no_lags])
    limits = [one["cpu_limit_accounts_per_second"] for one in found]
    if any(limits):
        rows.append(["one core's limit, accounts/s", *(number(limit) for limit in limits), *no_lags])
    heads = [f"{what}{one['label']}" for what in ("accounts/s, ", "loop lag p99 ms, ") for one in found]
    return table(["", *heads], rows) + _uncounted([point for one in found for point in one["points"]])


def _uncounted(points: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence for the failed and one for the skipped accounts, which the rates do not count."""
    text = ""
    for kind, why in (("failed", "codes"), ("skipped", "reasons")):
        if total := sum(point[kind] for point in points):
            causes = ", ".join(sorted({cause for point in points for cause in point[why]}))
            accounts, be = ("1 account", "was") if total == 1 else (f"{total:,} accounts", "were")
            happened = f"{be} skipped" if kind == "skipped" else kind
            text += f"\n{accounts} {happened} ({causes}); the rates do not count {'it' if total == 1 else 'them'}.\n"
    return text


def _rates_parts(rates: Mapping[str, Any]) -> list[str]:
    return ["## The start of the AssumeRole rate, simulated\n", rates_table(rates)]


def _sweep_parts(sweep: Mapping[str, Any]) -> list[str]:
    return ["## How many at once\n", sweep_table(sweep)]


def _engine_parts(engine: Mapping[str, Any]) -> list[str]:
    head = ["how", "accounts", "runs", "CPU s of the busiest process", "CPU s of the client", "AssumeRole calls"]
    rows = [
        [
            row["label"],
            count(row["accounts"]),
            count(row["runs"]),
            f"{number(row['cpu_seconds'])} ({' to '.join(number(one) for one in row['cpu_spread'])})",
            number(row["client_cpu_seconds"]),
            count(row["assume_role"]),
            number(row["lag_p50_ms"]),
            number(row["lag_p99_ms"]),
            number(row["seconds"]),
        ]
        for row in engine["rows"]
    ]
    parts = ["## Two worker processes of Dask\n"]
    if rows:
        parts.append(table([*head, "outcome lag p50 ms", "outcome lag p99 ms", "seconds"], rows))
        parts.append(
            "The lag of an outcome is the time from the end of its job to its arrival at the caller. Seconds depend on "
            "the cores: workers, client and server share those of this machine.\n"
        )
    if stream := engine.get("stream"):
        parts.append(
            f"{count(stream['targets'])} targets whose job does nothing: {number(stream['targets_per_second'])} a "
            f"second on two workers. The client, with the scheduler in it, held {number(stream['rss_mib'])} MiB after "
            f"the first twentieth, and at most {number(stream['rss_growth_mib'])} MiB more until the last.\n"
        )
    parts += [f"- {name}: {text.splitlines()[0]}" for name, text in engine["problems"].items()]
    return parts


def _apart(section: Mapping[str, Any]) -> list[str]:
    about = section.get("apart")
    return [] if about is None else [f"Measured in a run of its own, {about['when']}{_load(about)}.\n"]


_SECTION_PARTS: Final[dict[str, Callable[[Mapping[str, Any]], list[str]]]] = {
    "bigpage": _bigpage_parts,
    "store": _store_parts,
    "tls": _tls_parts,
    "micro": _micro_parts,
    "login": _login_parts,
    "startup": _startup_parts,
    "short": _short_parts,
    "rates": _rates_parts,
    "ablation": _ablation_parts,
    "sweep": _sweep_parts,
    "engine": _engine_parts,
    "parquet": _parquet_parts,
}
