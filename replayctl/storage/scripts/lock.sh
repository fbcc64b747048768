# Acquires the lock of one namespace: a file with its holder's name, linked into place, so that it never appears without one.
# $dags $submit $owner $team $token $store_mode $dir_mode $shared_file_mode $holder $stolen (mark of the lock that may be broken)
go "$dags" || fail "the DAG folder $dags does not exist or is not accessible to you" 66
top=$here
make_folder "$STORE" 002
enter "$STORE"
if [ -n "$is_new" ]; then
    facts .
    [ "$uid" != "$me" ] || chmod "$store_mode" .
fi
own_folder "$owner" "$dir_mode"

# The line in .airflowignore comes before any release.
is_ignored() {
    ignored=
    [ -f "$top/.airflowignore" ] || return 1
    while IFS= read -r line; do
        [ "$line" != "$STORE" ] || ignored=1
    done < "$top/.airflowignore"
    [ -n "$ignored" ]
}

# In a private folder. The file is shared, and several people may write to it at once.
ignore() {
    private
    tries=0
    until is_ignored; do
        if ! is_there "$top/.airflowignore"; then
            printf '%s\n' "$STORE" > ignore
            chmod "$shared_file_mode" ignore
            $link -- ignore "$top/.airflowignore" 2>/dev/null || is_there "$top/.airflowignore" || fail "cannot write $top/.airflowignore"
            rm -f ignore
            continue
        fi
        # Appended, never rewritten, since a colleague may be writing to it.
        is_file "$top/.airflowignore" || { cd -P -- "$top/" && in_the_way .airflowignore "$top"; }
        append "$top/.airflowignore" "$STORE" || {
            tries=$((tries + 1))
            [ "$tries" -lt 10 ] || fail "$top/.airflowignore has other hard links; it was not changed" 73
            sleep 1
        }
    done
}
if ! is_ignored; then
    (ignore) || { status=$?; discard ".tmp.$token"; exit "$status"; }
    discard ".tmp.$token"
fi

ticket=.lock.$token
if [ -n "$stolen" ]; then
    read_lock
    if [ "$mark" = "$stolen" ]; then
        mv -f -- .lock "$ticket.old" 2>/dev/null || in_the_way .lock
        # Someone else may have been faster: then we have moved away the lock of a live process.
        mark=$(mkdir "$ticket.d" && mv -f -- "$ticket.old" "$ticket.d/.lock" && cd -P "$ticket.d" && read_lock && echo "$mark") || :
        if [ "$mark" != "$stolen" ]; then ln -- "$ticket.d/.lock" .lock 2>/dev/null || :; fi
        discard "$ticket.d"
    fi
fi
now=$(date +%s)
words="$holder $now"
tries=0
while :; do
    # Written again when it is gone, since the holder of the lock removes such tickets. Never written through.
    if ! [ -f "$ticket" ]; then
        umask 022
        set -C
        printf '%s\n' "$words" 2>/dev/null > "$ticket" || fail "cannot write to $here"
        set +C
        umask 077
    fi
    read_lock
    if [ -z "$mark" ]; then
        if ln -- "$ticket" .lock 2>/dev/null && is_file .lock; then break; fi
        # It was released and acquired this very moment; or the file system has no hard links.
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || { rm -f "$ticket"; fail "cannot create a lock in $here: does its file system support hard links?"; }
        continue
    fi
    rm -f "$ticket"
    # The answer says what is in the lock's place.
    kind='' owner_name=''
    is_file .lock || nature .lock
    echo "clock $now"
    echo "mark $mark"
    [ -z "$kind" ] || printf 'nature %s %s\n' "$kind" "$owner_name"
    printf 'taken - %d\n%s\n' "${#lock}" "$lock"
    exit 0
done
rm -f "$ticket"
echo "locked"
