"""Generated messages of clustergateway.routing.v1; never edited by hand."""
