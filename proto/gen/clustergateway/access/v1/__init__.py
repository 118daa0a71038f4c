"""Generated messages of clustergateway.access.v1; never edited by hand."""
