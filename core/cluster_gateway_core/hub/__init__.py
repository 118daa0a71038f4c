"""What the core asks the hub: clusters, trust anchors, reviews. The only user of kubernetes_asyncio."""
