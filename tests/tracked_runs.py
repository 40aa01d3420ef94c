"""What is in the stores of four trackers, read back without the network, in a process of its own."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

KEYS = ("TRACKIO_DIR", "WANDB_DIR", "MLFLOW_TRACKING_URI")


def stores(folder: Path) -> dict[str, str]:
    """Return the variables that keep every tracker in a folder and off the network."""
    (folder / "wandb_dir").mkdir(parents=True, exist_ok=True)
    offline = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    places = (f"{folder}/trackio", f"{folder}/wandb_dir", f"sqlite:///{folder}/mlflow.db")
    return offline | {"WANDB_SILENT": "true"} | dict(zip(KEYS, places, strict=True))


def read_back(name: str, folder: Path, run: Path) -> tuple[set[str], dict[str, list], list[str]]:
    """Return the ids of a tracker's runs, their numbers by name as `[(step, value), ...]`, and their texts."""
    command, variables = [sys.executable, __file__, name, folder, run], os.environ | stores(folder)
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    ids, found, texts = json.loads(done.stdout.splitlines()[-1])
    return set(ids), found, texts


def _tensorboard(folder, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    found = {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}
    texts = [
        one.tensor_proto.string_val[0].decode() for name in events.Tags()["tensors"] for one in events.Tensors(name)
    ]
    return {str(run)}, found, texts


def _mlflow(folder, run):
    import mlflow

    client, ids, found, texts = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db"), set(), {}, []
    for one in client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]):
        ids.add(one.info.run_id)
        texts += [value for tag, value in one.data.tags.items() if tag.startswith("health")]
        for name in one.data.metrics:
            found[name] = [(each.step, each.value) for each in client.get_metric_history(one.info.run_id, name)]
        place = Path(one.info.artifact_uri.removeprefix("file://"))
        texts += [file.read_text() for file in place.rglob("*.json")]
    return ids, found, texts


def _trackio(folder, run):
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    [runs, found, texts] = [*Api().runs("huggingface")], {}, []
    for one in runs:
        for row in SQLiteStorage.get_logs("huggingface", one.name):
            for key, value in row.items():
                if isinstance(value, int | float):
                    found.setdefault(key, []).append((row.get("train/global_step", row.get("step")), value))
                else:
                    texts.append(json.dumps(value))
    texts += [one["text"] for one in SQLiteStorage.get_alerts("huggingface")]
    return {one.id for one in runs}, found, texts


def _wandb(folder, run):
    from wandb.proto import wandb_internal_pb2

    ids, found, texts = set(), {}, []
    for file in sorted((folder / "wandb_dir").rglob("*.wandb"), key=lambda file: file.stat().st_mtime):
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            ids |= {record.run.run_id} - {""}
            texts += [record.alert.text] if record.alert.text else []
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for key, value in row.items():
                if isinstance(value, int | float):
                    found.setdefault(key, []).append((row.get("train/global_step", row.get("step")), value))
    texts += [file.read_text() for file in (folder / "wandb_dir").rglob("*.table.json")]
    return ids, found, texts


def _records(data: bytes):
    """Yield the records of a log in LevelDB's format, as wandb writes it: blocks of 32 KiB behind a head of 7 bytes."""
    at, parts = 7, []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        parts.append(data[at + 7 : at + 7 + size])
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


if __name__ == "__main__":
    readers = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}
    ids, found, texts = readers[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    print(json.dumps([sorted(ids), found, texts]))
