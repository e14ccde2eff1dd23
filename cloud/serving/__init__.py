"""The model server: one repository of models, and the doors that rows come in by.

    model.releases, model.traffic ─► CatalogThread ─► ModelRepository
                                                        │ a RepositoryView for each thread
                              REST door, gRPC door ─────┤
                                        Kafka door ─────┘

Doors know the repository, never each other. A door that fails or waits (Kafka is down) leaves the
others alone.
"""
