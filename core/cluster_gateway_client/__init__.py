"""How Python talks to a routing core: requests to clusters and the registry, without any facade.

async with CoreClient(CoreEndpoint(target="dns:///cores.example:9444", ...)) as core:
    async with core.request("managed1", "GET", "/api/v1/namespaces") as response:
        print(response.status, await response.read())
"""

from cluster_gateway_client.channel import CoreEndpoint
from cluster_gateway_client.client import CoreClient
from cluster_gateway_client.errors import CoreError
from cluster_gateway_client.exchange import Exchange
from cluster_gateway_client.response import ClusterResponse

__all__ = ["ClusterResponse", "CoreClient", "CoreEndpoint", "CoreError", "Exchange"]
