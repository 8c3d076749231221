#!/usr/bin/env bash
# Packs a binary as a Debian package. Needs dpkg, gzip and binutils, which a Debian that can build Rust has.
#
#   packaging/deb/build.sh [BINARY]    without BINARY the release is built first
#
# The path of the package is the last line of the output. Completions and manual pages come from the binary, so it
# must run here. A dynamic binary gets a package that depends on the libc it was linked with; a static one on nothing.
#
# env: OUT_DIR               where the package goes (default: debian/ in the target directory)
#      DEBFULLNAME, DEBEMAIL the maintainer
#      SOURCE_DATE_EPOCH     the time of the package and its files (default: that of the last commit)
set -euo pipefail
umask 022
cd "$(dirname "$0")/../.."

die() { echo "packaging/deb/build.sh: $*" >&2; exit 1; }
for program in dpkg-deb gzip readelf strip md5sum; do
  command -v $program >/dev/null || die "$program is missing (packages dpkg, gzip, binutils, coreutils)"
done

target=${CARGO_TARGET_DIR:-target}
if [ $# = 0 ]; then
  cargo build --release --locked >&2
  set -- "$target/release/tideover"
fi
binary=$1
[ -x "$binary" ] || die "$binary is not a program"
said=$("$binary" --version) || die "$binary does not run here"
[[ $said =~ ^tideover\ ([0-9]+\.[0-9]+\.[0-9]+)(-[0-9A-Za-z.]+)?$ ]] || die "$binary says it is '$said'"
# What comes before a release sorts before it.
version=${BASH_REMATCH[1]}${BASH_REMATCH[2]/#-/\~}-1

# ---- what the binary needs

case $(LC_ALL=C readelf -h "$binary" | sed -n 's/^ *Machine: *//p') in
*X86-64*) architecture=amd64 ;;
AArch64) architecture=arm64 ;;
*) die "$binary is for a machine that this script does not know" ;;
esac
newest() { # newest PREFIX: the newest version of a library's symbols that the binary asks for
  readelf -VW "$binary" | grep -o "Name: $1_[0-9.]*" | sed "s/.*_//" | sort -Vu | tail -n 1
}
depends() {
  local name=() library glibc
  while read -r library; do
    case $library in
    libc.so.6 | libm.so.6 | ld-linux*.so.*)
      glibc=$(newest GLIBC)
      [ -n "$glibc" ] || die "$binary does not say which libc it needs"
      name+=("libc6 (>= $glibc)") ;;
    libgcc_s.so.1) name+=("libgcc-s1") ;;
    *) die "the binary needs $library, and this script does not know whose that is" ;;
    esac
  done < <(readelf -dW "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  [ ${#name[@]} = 0 ] || printf '%s\n' "${name[@]}" | sort -u | paste -sd, | sed 's/,/, /g'
}
needed=$(depends)

# ---- the tree

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
doc=$stage/usr/share/doc/tideover
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH
maintainer="${DEBFULLNAME:-The tideover developers} <${DEBEMAIL:-developers@tideover.invalid}>"

file() { # file MODE SOURCE DESTINATION
  [ -f "$2" ] || die "$2 is missing, and the package promises it"
  install -D -m "$1" "$2" "$stage/$3"
}
said_by_binary() { # said_by_binary DESTINATION WORD..
  mkdir -p "$(dirname "$stage/$1")"
  "$binary" "${@:2}" >"$stage/$1" || die "\`tideover ${*:2}\` failed"
  [ -s "$stage/$1" ] || die "\`tideover ${*:2}\` printed nothing"
}

file 755 "$binary" usr/bin/tideover
strip --remove-section=.comment --remove-section=.note "$stage/usr/bin/tideover"
file 644 packaging/journal/tideover.catalog usr/lib/systemd/catalog/tideover.catalog

# `tideover install` writes a unit of its own for each user; this one serves units that were written by hand.
unit=usr/lib/systemd/user/tideover-report@.service
file 644 units/tideover-report@.service "$unit"
sed -i -e '/^# Written by/d' -e 's|@TIDEOVER@|/usr/bin/tideover|' -e '/./,$!d' "$stage/$unit"
! grep -n '@[A-Z_]*@' "$stage/$unit" || die "units/tideover-report@.service has a place that this script does not fill"
# Filled in for each gateway by `tideover install`: as it is, it fits none.
file 644 units/50-tideover.conf usr/share/doc/tideover/examples/50-tideover.conf.in

said_by_binary usr/share/bash-completion/completions/tideover completions bash
said_by_binary usr/share/zsh/vendor-completions/_tideover completions zsh
said_by_binary usr/share/fish/vendor_completions.d/tideover.fish completions fish
man=$stage/usr/share/man/man1
mkdir -p "$man"
"$binary" man --out "$man" || die "\`tideover man\` failed"
[ -s "$man/tideover.1" ] || die "there is no manual page"

file 644 packaging/deb/README.Debian usr/share/doc/tideover/README.Debian
file 644 README.md usr/share/doc/tideover/README.md
file 644 CHANGELOG.md usr/share/doc/tideover/changelog
cat >"$doc/changelog.Debian" <<X
tideover ($version) unstable; urgency=medium

  * Packed from the sources of this version; changelog.gz says what is new.

 -- $maintainer  $(LC_ALL=C date -Ru -d "@$SOURCE_DATE_EPOCH")
X
file 644 packaging/deb/copyright usr/share/doc/tideover/copyright
sed -e 1,2d -e 's/^$/./' -e 's/^/ /' LICENSE-MIT >>"$doc/copyright"
gzip -9n "$doc"/changelog{,.Debian} "$man"/*.1

# ---- the package

file 755 packaging/deb/prerm DEBIAN/prerm
cat >"$stage/DEBIAN/control" <<X
Package: tideover
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f1)
${needed:+Depends: $needed
}Suggests: systemd, nodejs
Section: admin
Priority: optional
Description: Carries OpenClaw agents over a gateway restart
 tideover runs the OpenClaw gateway as its child. Before a tool runs, the
 session's task and the call with its arguments are on disk. After a restart
 the interrupted sessions are found, their user is told once, and nothing with
 side effects runs there until the user has spoken.
 .
 The package starts nothing: each user who runs a gateway brings tideover into
 its unit with "tideover install".
X
(cd "$stage" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
out=${OUT_DIR:-$target/debian}
mkdir -p "$out"
package=$out/tideover_${version}_$architecture.deb
# zstd, the default of some, cannot be read by every dpkg.
dpkg-deb --root-owner-group -Zxz --build "$stage" "$package" >&2
echo "$package"
