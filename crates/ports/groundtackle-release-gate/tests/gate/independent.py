"""Reads a log with the implementations of secure-systems-lab and in-toto, and with nothing of ours."""

import hashlib
import json
import sys

from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

path, public = sys.argv[1:]
key = SSlibKey(public, "ed25519", "ed25519", {"public": public})
previous = "sha256:" + "0" * 64
with open(path, "rb") as log:
    lines = log.read().splitlines()
for sequence, line in enumerate(lines):
    envelope = Envelope.from_dict(json.loads(line))
    envelope.verify([key], 1)
    assert envelope.payload_type == "application/vnd.in-toto+json", envelope.payload_type
    statement = json_format.Parse(envelope.payload, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    record = json.loads(envelope.payload)["predicate"]
    assert record["sequence"] == sequence and record["previous"] == previous, record
    previous = "sha256:" + hashlib.sha256(line).hexdigest()
print(len(lines), previous)
