"""What becomes of a caller's identity: whom it acts as here, and as whom the cluster sees it."""
