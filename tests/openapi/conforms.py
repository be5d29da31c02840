"""Whether values are what a schema of the OpenAPI document says.

    conforms.py SCHEMA DOCUMENT VALUES    # a name in components.schemas; the files of the document and of a list of values
"""

import json
import sys
from pathlib import Path

import jsonschema_rs

name, document, values = sys.argv[1], *(json.loads(Path(file).read_text()) for file in sys.argv[2:])
schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$ref": f"#/components/schemas/{name}",
    "components": document["components"],
}
validator = jsonschema_rs.validator_for(schema)
errors = [f"{value}\n{error}" for value in values for error in validator.iter_errors(value)]
if errors or not values:
    sys.exit("\n".join(errors) or "there is no value")
