"""Generated messages of clustergateway.registry.v1; never edited by hand."""
