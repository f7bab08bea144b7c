"""Skip rules: names of vendored directories, lock files and binary formats that are never worth indexing."""

# Lists of names are read as lists of names, not as columns of quotes.
# ruff: noqa: SIM905

from typing import Final

VENDORED_DIRECTORIES: Final = frozenset(
    """
    .git .hg .svn .bzr .jj CVS _darcs
    node_modules bower_components jspm_packages vendor third_party thirdparty site-packages
    dist-packages .venv .tox .nox .eggs .mypy_cache .ruff_cache .pytest_cache .hypothesis
    __pycache__ .ipynb_checkpoints .idea .gradle .terraform .bundle .yarn .pnpm-store .next .nuxt
    .svelte-kit .parcel-cache .cache .penstock Pods DerivedData
    """.split()
)

#: A directory that holds one of these is an environment or a data directory, whatever its name.
VENDORED_MARKERS: Final = frozenset({"pyvenv.cfg", "penstock.lock"})

LOCK_FILES: Final = frozenset(
    """
    package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock
    poetry.lock uv.lock pdm.lock Pipfile.lock pixi.lock conda-lock.yml pylock.toml
    requirements.lock requirements-lock.txt requirements-dev.lock
    Cargo.lock Gemfile.lock Podfile.lock Package.resolved composer.lock mix.lock rebar.lock
    go.sum go.work.sum gradle.lockfile packages.lock.json paket.lock pubspec.lock flake.lock
    Chart.lock .terraform.lock.hcl MODULE.bazel.lock
    """.split()
)

BINARY_EXTENSIONS: Final = frozenset(
    """
    pyc pyo pyd so dylib dll exe o a class jar war ear wasm node pdb ilk elf ko
    zip gz tgz bz2 xz zst lz4 7z rar tar whl egg deb rpm apk dmg iso img cab msi
    png jpg jpeg gif bmp ico icns webp tif tiff psd avif heic jp2 xcf
    mp3 mp4 m4a m4v wav ogg oga ogv flac aac avi mov mkv webm wmv
    ttf otf woff woff2 eot
    pdf doc docx xls xlsx ppt pptx odt ods odp epub mobi
    sqlite sqlite3 mdb parquet feather arrow npy npz h5 hdf5 pkl pickle joblib pt pth onnx
    safetensors gguf tflite mo gmo swp swo keystore jks p12 pfx der
    """.split()
)


def is_binary_name(name: str) -> bool:
    """Tell whether the extension alone says that the file is not text."""
    return name.rpartition(".")[2].lower() in BINARY_EXTENSIONS and "." in name[1:]
