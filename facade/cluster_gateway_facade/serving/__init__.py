"""HTTP on the wire: TLS with live reload, the aiohttp server, and taking a connection over for upgrades."""
