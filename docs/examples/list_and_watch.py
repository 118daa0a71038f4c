"""List a cluster's namespaces, then watch them, straight through a routing core: no hub hop and no facade.

usage: list_and_watch.py TARGET CLUSTER CA CERTIFICATE KEY
"""

import asyncio
import json
import sys

from cluster_gateway_client import CoreClient, CoreEndpoint


async def main(target: str, cluster: str, ca: str, certificate: str, key: str) -> None:
    endpoint = CoreEndpoint(target=target, ca_file=ca, certificate_file=certificate, private_key_file=key)
    async with CoreClient(endpoint) as core:
        async with core.request(cluster, "GET", "/api/v1/namespaces") as response:
            namespaces = json.loads(await response.read())
        for namespace in namespaces["items"]:
            print("listed", namespace["metadata"]["name"], flush=True)

        version = namespaces["metadata"]["resourceVersion"]
        watch = f"/api/v1/namespaces?watch=true&resourceVersion={version}"
        async with core.request(cluster, "GET", watch) as response:
            async for line in response.lines():
                event = json.loads(line)
                print(event["type"].lower(), event["object"]["metadata"]["name"], flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
