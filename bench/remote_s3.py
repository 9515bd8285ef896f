"""Erase a request from a DVC remote on S3, played by moto's server on this machine: planned, away, finished, searched again.

    uv pip install --target FOLDER dvc-s3 'moto[server]'
    PYTHONPATH=FOLDER python bench/remote_s3.py

A workspace of digits is added to DVC and pushed to a bucket that keeps versions; one of its objects is deleted there, which only hides it;
an object with an id of the request is put there as if by another project, and a photo of the request under another name. Right is: the plan
names every version in the bucket that holds something; with the remote away `erase --yes` ends with 1 and names it; the same command then
ends with 1 because of the two files that this project did not put there, and leaves nothing else; once these are gone, --check ends with 0,
and no version in the bucket has an id or a photo of the request, or the weights of the original.
"""

import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
import numpy as np
import small_workspace
from moto.server import ThreadedMotoServer
from PIL import Image

from lethe.data.images import load_images
from lethe.models import checkpoint

CHECKOUT = Path(__file__).parents[1]
KEYS = (*small_workspace.KEYS, "--methods.model_1.epochs", "1", "--methods.model_1.batch_size", "16", "--run.log_model", "none")
OTHERS = "store/files/md5/0f/" + "1" * 30  # an object that no file here names
OWN = ("--run.workspace", "ws", "--method", "model_1")


def stage(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as a user types it."""
    return subprocess.run([sys.executable, str(CHECKOUT / "src" / f"{verb}.py"), *words, *OWN], capture_output=True, text=True)


def typed(*words: str) -> None:
    """Run a command that must end well."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def expect(holds: bool, what: str) -> None:
    """Print what was tried and whether it is right; stop if it is not."""
    print(f"{'right' if holds else 'WRONG'}: {what}")
    if not holds:
        raise SystemExit(1)


def main() -> None:
    server = ThreadedMotoServer(port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    folder = Path(tempfile.mkdtemp(prefix="lethe-s3-"))
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "DVC_ROOT": str(folder), "DVC_SITE_CACHE_DIR": f"{folder}/site"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "mine", "AWS_DEFAULT_REGION": "us-east-1", "DVC_NO_ANALYTICS": "1"}
    bucket = boto3.client("s3", endpoint_url=address)
    bucket.create_bucket(Bucket="lethe")
    bucket.put_bucket_versioning(Bucket="lethe", VersioningConfiguration={"Status": "Enabled"})
    shutil.copy(CHECKOUT / "params.yaml", folder)
    os.chdir(folder)
    try:
        done = stage("unlearn", *KEYS)
        expect(done.returncode == 0, f"a result on digits {done.stderr[-300:] if done.returncode else ''}")
        with Path("ws/data/splits/forget.csv").open(newline="") as file:
            gone = [row["id"] for row in csv.DictReader(file)]
        images, _ = load_images(Path("ws/data/images.safetensors"))
        original = checkpoint.load(Path("ws/models/original.safetensors"))[0]
        largest = max(original.values(), key=lambda value: value.numel()).numpy().tobytes()
        picture = images.pixels[images.ids.index(gone[0])]
        typed("git", "init", "-q")
        typed("dvc", "init", "-q")
        Path("ws/.gitignore").unlink(missing_ok=True)
        typed("dvc", "add", "-q", "ws/data", "ws/models", "ws/logits")
        typed("dvc", "remote", "add", "-q", "-d", "far", "s3://lethe/store")
        typed("dvc", "remote", "modify", "-q", "--local", "far", "endpointurl", address)
        typed("dvc", "push", "-q")
        photo = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(photo, "BMP")
        bucket.put_object(Bucket="lethe", Key="store/holiday", Body=photo.getvalue())
        bucket.put_object(Bucket="lethe", Key=OTHERS, Body=f"id\n{gone[0]}\n".encode())
        holding = [key for key, content in contents(bucket).items() if holds(content, gone, picture, largest)]
        hidden = next(key for key, _ in holding if "/files/" in key and key != OTHERS)
        bucket.delete_object(Bucket="lethe", Key=hidden)  # as `dvc gc -c` does
        planned = stage("erase")
        named = [line for line in planned.stdout.splitlines() if "s3://lethe/store/" in line]
        missed = [key for key, _ in holding if not any(key in line for line in named)]
        expect(not missed and len(named) >= len(holding) > 3, f"the plan names {len(named)} objects; {len(holding)} hold something")
        expect(any(f"{hidden}?versionId=" in line for line in named), "one of them is an older version of an object that was deleted")
        yours = {line.split("s3://lethe/")[1].partition(":")[0] for line in named if "left to you" in line}
        expect(yours == {OTHERS, "store/holiday"}, "what this project did not put there is left to the user")
        typed("dvc", "remote", "modify", "-q", "--local", "far", "endpointurl", "http://127.0.0.1:9")
        away = stage("erase", "--yes")
        expect(away.returncode == 1 and away.stdout.count("s3://lethe/store: a remote that is not there now") == 1, "away: listed, exit 1")
        typed("dvc", "remote", "modify", "-q", "--local", "far", "endpointurl", address)
        finished = stage("erase", "--yes")
        left = {key for key, content in contents(bucket).items() if holds(content, gone, picture, largest)}
        expect(
            finished.returncode == 1 and {key for key, _ in left} == yours,
            f"the same command goes on, and leaves what is left to the user {left}",
        )
        for key, version in left:
            bucket.delete_object(Bucket="lethe", Key=key, VersionId=version)
        expect(stage("erase", "--check").returncode == 0, "--check finds nothing")
        kept = contents(bucket).values()
        expect(not any(holds(content, gone, picture, largest) for content in kept), f"{len(kept)} versions left, none holds anything")
    finally:
        os.chdir(folder.parent)
        shutil.rmtree(folder)
        server.stop()


def contents(bucket: "boto3.client") -> dict[tuple[str, str], bytes]:
    """Every version of every object of the bucket, by key and version."""
    listed = [(one["Key"], one["VersionId"]) for one in bucket.list_object_versions(Bucket="lethe")["Versions"]]
    return {(key, id_): bucket.get_object(Bucket="lethe", Key=key, VersionId=id_)["Body"].read() for key, id_ in listed}


def holds(content: bytes, gone: list[str], picture: "np.ndarray", tensor: bytes) -> bool:
    """Whether an object has an id in a list, a photo's pixels as stored or as a bitmap, or the original's largest tensor."""
    raw, bitmap = picture.tobytes(), np.ascontiguousarray(picture.transpose(1, 2, 0)[::-1, :, ::-1]).tobytes()
    ids = any(f'"{id_}"'.encode() in content or f"\n{id_}\n".encode() in content for id_ in gone)
    return ids or raw in content or bitmap in content or tensor in content


if __name__ == "__main__":
    main()
