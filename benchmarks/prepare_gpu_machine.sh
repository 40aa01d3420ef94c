#!/usr/bin/env bash
# Makes the environments for the GPU benchmarks on a Linux x86-64 machine without network, from a folder of wheels.
#
#   bash benchmarks/prepare_gpu_machine.sh WHEELS trl|unsloth [FOLDER]          # FOLDER: .gpu; makes FOLDER/trl or FOLDER/unsloth
#   .gpu/trl/bin/python benchmarks/gpu_memory.py --quick --unsloth-python .gpu/unsloth/bin/python
#
# The wheels are downloaded before, where there is a network, with the Python version that the machine has (--python-version
# and --platform of `pip download` do without it), into one folder for both environments:
#
#   for kind in trl unsloth; do
#     bash benchmarks/prepare_gpu_machine.sh --pins $kind > pins.txt
#     python3.12 -m pip download --no-deps --only-binary=:all: -d WHEELS -r pins.txt
#   done
#   python3.12 -m pip download --only-binary=:all: -d WHEELS torch torchvision     # several GB; only where the machine has no CUDA torch
#
# A torch with CUDA that $PYTHON (python3) has is used, with all else that it has and WHEELS has not: a small folder will do
# where most packages are there. With CHECK=1 no GPU is asked for, so that the script can be tried on any machine.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

# The versions that the tests passed with. torch and what belongs to one build of it come with it; the newest Unsloth wants a
# newer certifi than every index has, so that all is installed without looking at what it wants.
pins() {
    case $1 in
        trl) grep -vE '^(#|torch|triton|nvidia|cuda|xformers)' constraints.txt ;;
        unsloth)
            grep -vE '^(#|torch(vision|audio)?==|triton|nvidia|cuda|xformers|unsloth)' constraints-unsloth.txt
            printf '%s\n' unsloth==2026.10.9 unsloth_zoo==2026.10.9
            ;;
        *) echo "found $1, allowed: trl, unsloth" >&2; return 2 ;;
    esac
    echo 'setuptools>=77'
}

# Prints the wheels of the pins on stdin; what has none must be installed in some version.
choose() {
    "$PYTHON" -c '
import re, sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

wheels = {}
for file in sorted(Path(sys.argv[1]).glob("*.whl")):
    name, number = file.name.split("-")[:2]
    wheels.setdefault(plain(name), {})[number] = file
missing = []
for pin in map(str.strip, sys.stdin):
    name, number = re.match(r"([\w.-]+)(?:==(.+))?", pin).groups()
    found = wheels.get(plain(name), {})
    file = found.get(number) if number else next(iter(reversed(found.values())), None)
    if file:
        print(file.resolve())
        continue
    try:
        installed = version(name)
    except PackageNotFoundError:
        missing.append(pin)
        continue
    if number and installed != number:
        print(f"no wheel of {pin}: using the {installed} that is installed", file=sys.stderr)
sys.exit(f"found no wheel in {sys.argv[1]} and no installed package for: " + ", ".join(missing) if missing else 0)
' "$1"
}

if [[ ${1:-} == --pins ]]; then
    pins "${2:?trl or unsloth}"
    exit
fi
WHEELS=${1:?the folder of wheels} KIND=${2:?trl or unsloth} VENV=${3:-.gpu}/$2
PINS=$(pins "$KIND")
FILES=$(choose "$WHEELS" <<<"$PINS")
"$PYTHON" -m venv --without-pip "$VENV"
# --system-site-packages would name the site-packages below a virtual environment and not its own
SITE=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
"$PYTHON" -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_paths()["purelib"])' > "$SITE/outer.pth"
INSTALL=("$VENV/bin/python" -m pip --disable-pip-version-check install --quiet --no-index --find-links "$WHEELS")
if ! "$PYTHON" -c 'import os, torch; raise SystemExit(not (torch.version.cuda or os.environ.get("CHECK")))'; then
    echo "no torch with CUDA here: installing the wheel"
    "${INSTALL[@]}" torch torchvision
fi
mapfile -t FILES <<<"$FILES"
[[ -z ${FILES[0]} ]] || "${INSTALL[@]}" --no-deps "${FILES[@]}"
"${INSTALL[@]}" --no-deps --no-build-isolation -e .

[[ $KIND == trl ]] || export IMPORT_FIRST=unsloth
[[ -z ${CHECK:-} ]] || export UNSLOTH_FORCE_CPU=1
HF_HUB_OFFLINE=1 UNSLOTH_DISABLE_STATISTICS=1 "$VENV/bin/python" -c '
import importlib, os
if first := os.environ.get("IMPORT_FIRST"):
    importlib.import_module(first)
import bitsandbytes, peft, torch, transformers, trl
from reasoning_ext.run_dir import versions
from trl import GRPOTrainer, SFTTrainer

print("\n".join(f"{name} {number}" for name, number in versions().items()))
if os.environ.get("CHECK"):
    raise SystemExit
assert torch.cuda.is_available(), "torch finds no CUDA device"
assert bitsandbytes.cextension.lib.compiled_with_cuda, "bitsandbytes has no library for this CUDA"
layer = bitsandbytes.nn.Linear4bit(256, 256, compute_dtype=torch.bfloat16, quant_type="nf4").cuda()
assert layer(torch.ones(2, 256, dtype=torch.bfloat16, device="cuda")).isfinite().all(), "bitsandbytes computes nonsense"
print(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory // 2**20, "MiB, CUDA", torch.version.cuda)
'
echo "ready: $VENV/bin/python"
