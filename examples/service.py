"""Web service that holds one pool: FastAPI opens it at the start and closes it at the end.

    python examples/service.py
    curl http://127.0.0.1:8000/accounts/111111111111/instances?region=eu-west-1

Requests share the tokens: the first one for an account assumes its role, the others use the token until it is renewed.
The simple way opens a pool in each request, and calls AssumeRole each time. Requires `fastapi` and `uvicorn`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from asyncauth import AssumeRoleDenied, ConfigurationError, SessionPool, SourceError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Without region_name=, an account's default region is that of its partition.
    async with SessionPool(role="manage-role") as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/accounts/{account}/instances")
async def instances(account: str, request: Request, region: str | None = None) -> list[dict[str, Any]]:
    pool: SessionPool = request.app.state.pool
    try:
        session = await pool.session(account, region)
        found = []
        async with session.client("ec2") as ec2:
            async for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
                for reservation in page["Reservations"]:
                    found += [
                        {"id": one["InstanceId"], "type": one["InstanceType"]} for one in reservation["Instances"]
                    ]
    except ConfigurationError as error:  # no account id, or no such region
        raise HTTPException(422, str(error)) from error
    except AssumeRoleDenied as error:
        raise HTTPException(403, f"the role of account {account} cannot be assumed") from error
    except SourceError as error:
        raise HTTPException(503, "the base credentials of this service do not work") from error
    return found


@app.get("/health")
async def health(request: Request) -> dict[str, Any]:
    pool: SessionPool = request.app.state.pool
    return {"tokens": pool.statistics().tokens_cached}


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=8000)
