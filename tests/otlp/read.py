"""Prints the spans of a message, a line each, as OpenTelemetry's own generated code reads them."""

import sys

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

request = ExportTraceServiceRequest()
with open(sys.argv[1], "rb") as file:
    request.ParseFromString(file.read())
for resource in request.resource_spans:
    names = {attribute.key for attribute in resource.resource.attributes}
    assert {"service.name", "service.version", "service.instance.id"} <= names, names
    for scope in resource.scope_spans:
        assert scope.scope.name == "tollgate", scope.scope
        for span in scope.spans:
            attributes = []
            for attribute in span.attributes:
                value = getattr(attribute.value, attribute.value.WhichOneof("value"))
                attributes.append(f"{attribute.key}={value}")
            ids = [bytes.hex() for bytes in (span.trace_id, span.span_id, span.parent_span_id)]
            numbers = [span.kind, span.start_time_unix_nano, span.end_time_unix_nano, span.flags, span.status.code]
            print(*ids, *numbers, span.name, *attributes)
