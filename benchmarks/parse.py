"""Cost of parsing a page of instances: how long do aiobotocore's parser and asyncauth's take for the same bytes?

    python -m benchmarks.parse

Both run in one process, alternating, without network or event loop. Each figure is the minimum of many runs, because
other work of the machine can only add time.

What would make the answer wrong:
- results that are not equal: they are compared, including the order of keys, before anything is measured;
- a first run: shapes are compiled, and models read, before the clock starts;
- the garbage of one parser collected during the other's run: collection is off meanwhile. That favours stock, which
  makes three times as many objects.
"""

from __future__ import annotations

import argparse
import gc
import time
from typing import Any

from aiobotocore.parsers import AioResponseParserFactory
from botocore.loaders import Loader
from botocore.model import ServiceModel

from asyncauth._clients import fast_parser_factory
from benchmarks import _bodies


def parse(factory: Any, response: dict[str, Any], shape: Any) -> Any:
    """Parse a response on this thread, whatever its size."""
    parser = factory.create_parser("ec2")
    return parser._parse(response, shape, None) if hasattr(parser, "plans") else parser._do_parse(response, shape)


def least_milliseconds(factories: list[Any], response: dict[str, Any], shape: Any, seconds: float) -> list[float]:
    """Time each factory's parser, alternating, until `seconds` have passed; return the minimum of each."""
    least = [float("inf")] * len(factories)
    end = time.perf_counter() + seconds
    gc.disable()
    try:
        while time.perf_counter() < end:
            for index, factory in enumerate(factories):
                start = time.perf_counter()
                parse(factory, response, shape)
                least[index] = min(least[index], time.perf_counter() - start)
    finally:
        gc.enable()
    return [value * 1e3 for value in least]


def main() -> None:
    """Print a table of milliseconds per page."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--instances", type=int, nargs="*", default=[5, 100, 1_000])
    options.add_argument(
        "--seconds", type=float, default=8.0, help="how long to repeat each size (default: %(default)s)"
    )
    chosen = options.parse_args()
    model = ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")
    shape = model.operation_model("DescribeInstances").output_shape
    factories = [AioResponseParserFactory(), fast_parser_factory()]
    print("| instances | KB | stock, ms | asyncauth, ms | ratio |\n| ---: | ---: | ---: | ---: | ---: |")
    for count in chosen.instances:
        body = _bodies.describe_instances(count, detailed=True)
        response = {"body": body, "headers": {}, "status_code": 200}
        results = {repr(parse(factory, response, shape)) for factory in factories}
        assert len(results) == 1, "the results of the parsers differ"
        stock, fast = least_milliseconds(factories, response, shape, chosen.seconds)
        print(f"| {count:,} | {len(body) / 1e3:,.0f} | {stock:.2f} | {fast:.2f} | {fast / stock:.2f} |")


if __name__ == "__main__":
    main()
