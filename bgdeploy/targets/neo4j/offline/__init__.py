"""The ``import`` loader: Neo4j's own import tool, on the server's own host."""
