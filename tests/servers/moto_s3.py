#!/usr/bin/env python3
"""A bucket with versions, object lock and rights for the tests: moto, which checks signatures and policies.

Prints its port and the key of a user with the given rights as the first line, in JSON. Each line `versions` on standard
input is answered by a line with every version and delete marker of the bucket. It ends with its standard input.
"""

import argparse
import json
import logging
import os
import sys

import boto3
from moto import settings
from moto.iam.models import iam_backends
from moto.server import ThreadedMotoServer

BUCKET = "acme-backups"
ACCOUNT = "123456789012"
REGION = "us-east-1"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--versions", action="store_true", help="keep older versions")
    parser.add_argument("--lock-days", type=int, help="lock what is written for so many days; keeps versions, too")
    parser.add_argument("--allow", action="append", default=[], help="an action that the user may do")
    arguments = parser.parse_args()
    secret = os.environ["S3_SECRET"]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()

    def client(service, key="root", secret_key="root"):
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret_key,
        )

    s3 = client("s3")
    s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=arguments.lock_days is not None)
    if arguments.versions:
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    if arguments.lock_days is not None:
        retention = {"Mode": "COMPLIANCE", "Days": arguments.lock_days}
        s3.put_object_lock_configuration(
            Bucket=BUCKET,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
        )
    key = user("writer", arguments.allow, secret)
    admin = user("admin", ["s3:*"], "admin")
    s3 = client("s3", admin, "admin")
    # From here on every request is checked.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0

    print(json.dumps({"port": port, "access_key": key}), flush=True)
    for line in sys.stdin:
        if line.strip() == "versions":
            print(json.dumps(versions(s3)), flush=True)
    server.stop()


def user(name, allowed, secret):
    """Makes a user who may do this and nothing else, and returns the id of the key with this secret."""
    iam = iam_backends[ACCOUNT]["aws"]
    iam.create_user(REGION, name)
    statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(name, "rights", json.dumps(policy))
    key = iam.create_access_key(name)
    key.secret_access_key = secret
    return key.access_key_id


def versions(s3):
    found = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET):
        for version in page.get("Versions", []):
            found.append({"key": version["Key"], "size_bytes": version["Size"], "is_latest": version["IsLatest"]})
        for marker in page.get("DeleteMarkers", []):
            found.append({"key": marker["Key"], "is_marker": True, "is_latest": marker["IsLatest"]})
    return found


if __name__ == "__main__":
    main()
