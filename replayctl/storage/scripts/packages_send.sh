# Stores one package from stdin, or its rest after the first $offset bytes, which were uploaded before.
# After the common variables: $token $sha $name $size_sent (of the whole) $offset $facts_text (JSON of one line) $audit
go_to_packages make
package=p_$(printf '%.16s' "$sha")
check_folder "$package"
# Of uploads that were killed long ago.
for leftover in .tmp.*; do
    ! is_there "$leftover" || [ -z "$(find "./$leftover" -prune -mtime +0 2>/dev/null)" ] || discard "$leftover"
done
enter_parts make
work=work.$sha.$token
keep() {
    # The uploaded part is kept for the next time, whatever the present folder is, and also when it was about to be stored.
    (cd -P -- "$packages/.tmp.$token/new" && is_part "$name" && chmod 600 -- "$name" && mv -f -- "$name" "../../.parts.$me/$work") 2>/dev/null || :
    (cd -P -- "$packages/.parts.$me" && keep_part "$work" "$sha") 2>/dev/null || :
    (go "$packages" && discard ".tmp.$token") 2>/dev/null || :
}
# Hashes the file while it grows, as another process reads it back, until it is whole or we are gone.
follow() {
    sums=sum.$sha.$token
    # shellcheck disable=SC2094  # `facts` looks at the file without reading it
    {
        while kill -0 "$$"; do
            facts "$work" || break
            [ "$size" = "$size_sent" ] && is_whole=1 || is_whole=
            # Goes on where the last one stopped.
            cat <&3
            [ -z "$is_whole" ] || break
            sleep 0.05 || sleep 1
        done 3< "$work" | digest > "$sums"
    } </dev/null 2>/dev/null &
    follower=$!
}
stop_following() {
    [ -n "${follower:-}" ] || return 0
    { kill "$follower" && wait "$follower"; } 2>/dev/null || :
    follower=
    ! cd -P -- "$packages/.parts.$me" 2>/dev/null || rm -f -- "$sums" || :
}
trap 'keep; stop_following; stop_heartbeat; end_watchdog' EXIT
if [ "$offset" = 0 ]; then
    set -C
    : > "$work" || fail "cannot write to $here"
    set +C
else
    mv -f -- "part.$sha" "$work" 2>/dev/null || fail "the uploaded part of $name no longer exists" 75 "run the same command again; someone else is uploading it too"
    is_part "$work" && [ "$size" = "$offset" ] || fail "the uploaded part of $name has changed" 75 "run the same command again; someone else is uploading it too"
fi
echo "phase receive"
follow
cat >> "$work" || fail "cannot write $name to $packages: is the disk full?"
is_part "$work" || fail "$here/$work is no longer a file"
[ "$size" = "$size_sent" ] || fail "only $size of $size_sent bytes of $name were received; the next upload resumes there"

echo "phase verify"
heartbeat
sum=
! wait "$follower" || IFS= read -r sum < "$sums" || :
follower=
rm -f -- "$sums"
go "$packages" || fail "$packages was moved meanwhile"
private
mkdir new
mv -f -- "../.parts.$me/$work" "new/$name" || fail "the uploaded file $name no longer exists"
cd -P new || fail "the folder of $name no longer exists"
facts "$name" || fail "the uploaded file $name no longer exists"
case $mode in -*) ;; *) fail "$name was replaced meanwhile" 73 ;; esac
[ "$links" = 1 ] && [ "$uid" = "$me" ] || fail "$name was replaced meanwhile" 73
# Nothing is condemned by a hash that may have been cut.
[ "$sum" = "$sha" ] || sum=$(digest < "$name")
[ "$sum" = "$sha" ] || { rm -f -- "$name" && false; } || fail "the uploaded file $name differs from the local one and was deleted: did the local file change meanwhile?"
stop_heartbeat
printf '%s\n' "$facts_text" > .package.json
chmod "$package_mode" "$name" .package.json
chmod "$dir_mode" .
cd -P .. || exit
# A damaged one is replaced.
! is_there "../$package" || put "../$package" replaced
put new "../$package"
printf '%s\n' "$audit" > audit
log_audit
# By the path that readers use.
# shellcheck disable=SC3013  # POSIX since 2024, and in every sh that we know
[ .. -ef "$submit/$owner/packages" ] || fail "$submit/$owner/packages was replaced meanwhile" 73
go "$submit/$owner/packages/$package" && stored_file && [ "$file $size" = "$name $size_sent" ] || fail "$package differs from what was stored: did someone change it meanwhile?"
go "$packages/.tmp.$token"
leave_private
echo "stored $package"
echo "whole"
