#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The man page and "nbdkit rbdcrypt --help" name the same parameters, the
# man page is sound POD, and what --dump-plugin prints and which debug
# flags exist is described in it.  The lines of the log that operators are
# told about are those that the sources have.  All is read from the sources,
# so that this runs wherever "make check" does.

set -eu
export LC_ALL=C

srcdir=${srcdir:-$(dirname "$0")/../..}
pod=$srcdir/plugin/nbd/nbdkit-rbdcrypt-plugin.pod
parameters=$srcdir/plugin/nbd/parameters.c
failed=0

fail ()
{
  echo "$1" >&2
  failed=1
}

# The strings of the help text: a parameter starts a line, what continues
# it is indented.
helped ()
{
  sed -n '/^static const char help_/,/;[[:space:]]*$/p' "$parameters" |
    sed -n 's/^[^"]*"\[\{0,1\}\([a-z][-a-zA-Z.]*=\).*$/\1/p' | sort -u
}

# "=item [B<image=>]SPEC" and "=item B<ceph.>OPTIONB<=>VALUE".
documented ()
{
  sed -n '/^=head1 PARAMETERS/,/^=head1 KEY REFERENCES/p' "$pod" |
    sed -n 's/^=item \[\{0,1\}B</B</p' |
    sed 's/[BI]<\([^>]*\)>/\1/g; s/\].*//; s/=.*/=/' | sort -u
}

# compare WHAT EXPECTED-FROM LIST WHERE LIST
compare ()
{
  local missing
  if [ -z "$3" ] || [ -z "$5" ]; then
    fail "no $1 found in $([ -n "$3" ] && echo "$4" || echo "$2")"
    return
  fi
  missing=$(comm -23 <(echo "$3") <(echo "$5") | tr '\n' ' ')
  [ -z "$missing" ] || fail "$1 in $2 but not in $4: $missing"
  missing=$(comm -13 <(echo "$3") <(echo "$5") | tr '\n' ' ')
  [ -z "$missing" ] || fail "$1 in $4 but not in $2: $missing"
}

compare "parameters" "--help" "$(helped)" "the man page" "$(documented)"

compare "required settings of Ceph" "cluster.c" \
  "$(sed -n '/required_options\[\] = {/,/^};/p' \
       "$srcdir/plugin/image/cluster.c" |
       sed -n 's/^  { "\([a-z_]*\)", "\([^"]*\)" },$/\1=\2/p' | sort)" \
  "the man page" \
  "$(sed -n "/^For correctness/,/^=back/p" "$pod" |
       sed -n 's/^=item C<\(.*\)>$/\1/p' | sort)"

compare "settings of Ceph" "tuning.c" \
  "$(grep -o '{ "[a-z_]*",' "$srcdir/plugin/image/tuning.c" |
       tr -d '{ ",' | sort -u)" \
  "the man page" \
  "$(sed -n '/^For speed, unless/,/^The default allocator/p' "$pod" |
       grep '^=item' | grep -o 'C<[a-z_]*>' | tr -d 'C<>' | sort -u)"

compare "lines of --dump-plugin" "plugin/nbd" \
  "$(grep -oh '"rbdcrypt_[a-z0-9_]*=' "$srcdir"/plugin/nbd/*.c |
       tr -d '"' | sort -u)" \
  "the man page" \
  "$(sed -n 's/^=item C<\(rbdcrypt_[a-z0-9_]*=\).*/\1/p' "$pod" | sort -u)"

compare "metrics" "exposition.c" \
  "$(grep -oh '"rbdcrypt_[a-z_]*"' "$srcdir/plugin/serve/exposition.c" |
       tr -d '"' | sort -u)" \
  "the man page" \
  "$(sed -n '/^=head1 METRICS/,/^=head1 SECRETS/p' "$pod" | grep '^=item' |
       grep -o 'rbdcrypt_[a-z_]*' | sort -u)"

# What the table of providers feeds: --help, --dump-plugin and the sentences.
compare "kinds of key references" "plugin/keys" \
  "$(grep -rhoE '\.grammar = "[^"]*"|^KEYFILE_PROVIDER \([a-z]+, "[^"]*"' \
       "$srcdir/plugin/keys" | sed 's/.*"\(.*\)"/\1/; s/, /\n/g' | sort -u)" \
  "the man page" \
  "$(sed -n '/^=head1 KEY REFERENCES/,/^=head1 PROFILES/p' "$pod" |
       sed -n 's/^=head2 \([a-z]*:.*\)/\1/p' | sed 's/, /\n/g' | sort -u)"

compare "types of profiles" "plugin/keys" \
  "$(grep -rh --exclude=example.c '\.types = ' "$srcdir/plugin/keys" | grep -o '"[^"]*"' |
       tr -d '"' | sort -u)" \
  "rbdcrypt-profiles(5)" \
  "$(sed -n '/^=item C<type>/,/^=item C<images>/p' \
       "$srcdir/plugin/keys/rbdcrypt-profiles.pod" |
       grep -o 'C<[a-z-]*>' | sed 's/C<\(.*\)>/\1/' |
       grep -vxE 'type|images' | sort -u)"

compare "debug flags" "the sources" \
  "$(grep -rhoE '\<rbdcrypt_debug_[a-z0-9_]+ *(=|;)' "$srcdir"/plugin |
       sed 's/rbdcrypt_debug_\([a-z0-9_]*\).*/\1/' | sort -u)" \
  "the man page" \
  "$(sed -n 's/^=item B<-D rbdcrypt\.\([a-z0-9_]*\)=.*/\1/p' "$pod" |
       sort -u)"

# What a release is called, and whether it is one.
version=$(sed -n 's/^AC_INIT(\[[^]]*\],\[\(.*\)\])$/\1/p' "$srcdir/configure.ac")
for f in "$srcdir/NEWS.md:$(sed -n '/^## /{s/^## //p;q}' "$srcdir/NEWS.md")" \
  "$pod:$(sed -n '/^=head1 VERSION/,/^=head1 SEE/s/^C<.*> \([0-9].*\) needs .*/\1/p' \
    "$pod")"; do
  case ${f#*:} in
    "$version" | "$version (not yet released)") ;;
    *) fail "${f%%:*}: says version \"${f#*:}\", configure.ac says $version" ;;
  esac
  [ "${released:=${f#*:}}" = "${f#*:}" ] ||
    fail "NEWS.md says \"$released\", the man page says \"${f#*:}\""
done

# A list in alphabetical order is one that a reader finds things in.
items=$(sed -n '/^=head1 PARAMETERS/,/^=head1 KEY REFERENCES/p' "$pod" |
          sed -n 's/^=item \[\{0,1\}B</B</p' |
          sed 's/[BI]<\([^>]*\)>/\1/g; s/\].*//; s/=.*/=/' | uniq)
if [ "$items" != "$(echo "$items" | sort -u)" ]; then
  fail "parameters of the man page are not in alphabetical order:
$items"
fi

# Each line of the log that operators are told about: "..." stands for what the
# sources fill in.
mapfile -t sources < <(find "$srcdir/plugin" -name '*.c')
if ! perl - "$srcdir/docs/rbdcrypt-operating.pod" "${sources[@]}" >&2 <<'PERL'
use strict;
undef $/;
my ($pod, @sources) = map { open my $f, '<', $_ or die "$_: $!\n"; <$f> } @ARGV;
my $string = qr/"((?:[^"\\\n]|\\.)*)"|\bPRI\w+/;
my @texts;
for my $source (@sources) {
  $source =~ s{/\*.*?\*/}{}gs;
  while ($source =~ /((?:$string\s*)+)/g) {
    my $literals = $1;
    my $text = '';
    $text .= $1 // 'd' while $literals =~ /$string/g;
    $text =~ s/\\(.)/$1/g;
    $text =~ s/%[-+ #0]*[\d*]*(?:\.[\d*]+)?(?:hh?|ll?|z|j|t)?[a-zA-Z]/\0/g;
    push @texts, $text =~ s/\0+/.../gr;
  }
}
my ($log) = $pod =~ /^=head1 WHAT THE LOG ASKS OF YOU$(.*?)^=head1 /ms;
my @lines = $log =~ /^=item C<(.*)>$/mg;
die "rbdcrypt-operating(7) names no line of the log\n" if @lines < 10;
my @missing = grep { my $l = $_; !grep { index ($_, $l) >= 0 } @texts } @lines;
print "rbdcrypt-operating(7): no source logs \"$_\"\n" for @missing;
exit @missing > 0;
PERL
then
  fail "rbdcrypt-operating(7): see above"
fi

if command -v podchecker >/dev/null; then
  find "$srcdir/plugin" "$srcdir/docs" -name '*.pod' -exec podchecker {} + >&2 ||
    fail "podchecker: see above"
else
  fail "podchecker (Debian: perl) is needed"
fi

exit $failed
