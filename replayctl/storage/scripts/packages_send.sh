# Stores one package that comes on stdin, or its rest after the first $offset bytes, which have arrived before.
# After the common variables: $token $sha $name $size_sent (of the whole) $offset $facts_text (JSON of one line) $audit
go_to_packages make
package=p_$(printf '%.16s' "$sha")
check_folder "$package"
# Of uploads that were killed long ago.
for left in .tmp.*; do
    ! is_there "$left" || [ -z "$(find "./$left" -prune -mtime +0 2>/dev/null)" ] || discard "$left"
done
enter_parts make
work=work.$sha.$token
keep() {
    # What has arrived is kept for the next time, wherever we are by now.
    ! (cd -P -- "$packages/.parts.$me" 2>/dev/null && is_part "$work" && mv -f -- "$work" "part.$sha") 2>/dev/null || :
}
trap 'keep; stop_heartbeat; end_watchdog' EXIT
if [ "$offset" = 0 ]; then
    set -C
    : > "$work" || fail "cannot write into $here"
    set +C
else
    mv -f -- "part.$sha" "$work" 2>/dev/null || fail "the part of $name that had arrived is not there any more" 75 "give the command again: somebody else sends it, too"
    is_part "$work" && [ "$size" = "$offset" ] || fail "the part of $name that had arrived has changed" 75 "give the command again: somebody else sends it, too"
fi
echo "phase receive"
cat >> "$work" || fail "cannot write $name into $packages: is the disk full?"
is_part "$work" || fail "$here/$work is no file any more"
[ "$size" = "$size_sent" ] || fail "$size of $size_sent bytes of $name have arrived; the next upload goes on from there"

echo "phase verify"
heartbeat
go "$packages" || fail "$packages was moved away meanwhile"
private
mkdir new
mv -f -- "../.parts.$me/$work" "new/$name" || fail "what has arrived of $name is gone"
cd -P new || fail "the folder of $name is gone"
facts "$name" || fail "what has arrived of $name is gone"
case $mode in -*) ;; *) fail "$name was exchanged meanwhile" 73 ;; esac
[ "$links" = 1 ] && [ "$uid" = "$me" ] || fail "$name was exchanged meanwhile" 73
[ "$(digest < "$name")" = "$sha" ] || fail "what has arrived of $name is not what was to be sent: did it change meanwhile? It was thrown away"
stop_heartbeat
printf '%s\n' "$facts_text" > .package.json
chmod "$package_mode" "$name" .package.json
chmod "$dir_mode" .
cd -P .. || exit
# One that is damaged makes room.
! is_there "../$package" || put "../$package" replaced
put new "../$package"
printf '%s\n' "$audit" > audit
log_audit
# By the path that readers take.
# shellcheck disable=SC3013  # POSIX since 2024, and in every sh that we know
[ .. -ef "$submit/$owner/packages" ] || fail "$submit/$owner/packages was exchanged meanwhile" 73
go "$submit/$owner/packages/$package" && stored_file && [ "$file $size" = "$name $size_sent" ] || fail "$package is not what was stored: did somebody change it meanwhile?"
go "$packages/.tmp.$token"
leave_private
echo "stored $package"
echo "whole"
