"""The REST API: translates HTTP into calls of the services below, and their answers back.

No rule of a domain lives here. One file a resource holds the table of its routes and a short function
for each; what they share is in ``reading`` (requests), ``replies`` (answers), ``problems`` (refusals),
``guards`` (who may) and ``operations`` (what the OpenAPI document says).
"""
