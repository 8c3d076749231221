#!/usr/bin/env bash
# Everything that a release has: the Debian package, a static program where this toolchain can make one, checksums.
#
#   packaging/release.sh [DIRECTORY]    default: release-files/ in the target directory
#
# The static program needs Rust's library for musl (`rustup target add x86_64-unknown-linux-musl`) and nothing else:
# no C is compiled. Where it is not there the release goes without, and says so at the end.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

target_dir=${CARGO_TARGET_DIR:-target}
out=${1:-$target_dir/release-files}
musl=$(uname -m)-unknown-linux-musl
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out"/tideover[-_]* "$out/SHA256SUMS"

cargo build --release --locked
OUT_DIR=$out packaging/deb/build.sh "$target_dir/release/tideover"

static="no static program: this toolchain has no $musl (rustup target add $musl)"
if [ -d "$(rustc --print sysroot)/lib/rustlib/$musl/lib" ]; then
  cargo build --release --locked --target "$musl"
  binary=$target_dir/$musl/release/tideover
  # A program without an interpreter and without libraries, or it is not what its name says.
  if readelf -lW "$binary" | grep -q INTERP || readelf -dW "$binary" | grep -q NEEDED; then
    echo "packaging/release.sh: $binary is not static" >&2
    exit 1
  fi
  version=$("$binary" --version)
  name=${version/ /-}-$musl
  stage=$(mktemp -d)
  trap 'rm -rf "$stage"' EXIT
  mkdir "$stage/$name"
  install -m 755 "$binary" "$stage/$name/tideover"
  install -m 644 README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE packaging/journal/tideover.catalog "$stage/$name"
  tar -C "$stage" --owner=0 --group=0 --numeric-owner --sort=name -czf "$out/$name.tar.gz" "$name"
  static="static program: $name.tar.gz"
fi
(cd "$out" && sha256sum tideover[-_]* >SHA256SUMS)
echo
echo "$out:"
cat "$out/SHA256SUMS"
echo "$static"
