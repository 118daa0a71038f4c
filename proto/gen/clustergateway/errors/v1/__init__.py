"""Generated messages of clustergateway.errors.v1; never edited by hand."""
