"""Prints the YAML documents of a file as one JSON array, read as Kubernetes and Compose read them."""

import json
import sys

import yaml

with open(sys.argv[1], encoding="utf-8") as file:
    json.dump([document for document in yaml.safe_load_all(file) if document is not None], sys.stdout)
