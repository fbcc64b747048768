# Takes the lock of one namespace: a file with its holder's name, linked into place, so that it never shows up nameless.
# $dags $submit $owner $token $dir_mode $holder $stolen (the words of the holder whose lock may be taken away)
cd -- "$dags" 2>/dev/null || fail "the DAG folder $dags does not exist or is closed to you" 66
own=$STORE/$owner

# The ignore line comes before the store exists. Appended, never rewritten: a colleague may be writing to that file.
if ! { [ -f .airflowignore ] && grep -qxF "$STORE" .airflowignore; }; then
    if [ -s .airflowignore ] && [ -n "$(tail -c 1 .airflowignore)" ]; then echo >> .airflowignore; fi
    printf '%s\n' "$STORE" >> .airflowignore || fail "cannot write $dags/.airflowignore"
fi
folder "$STORE"
folder "$own"

ticket=$own/.lock.$token
words="$holder $(date +%s)"
if [ -n "$stolen" ] && [ "$(cat "$own/.lock" 2>/dev/null)" = "$stolen" ]; then
    mv -f "$own/.lock" "$ticket.old" 2>/dev/null || :
    # Somebody else may have been faster: then what was moved away is the lock of a living one.
    if [ "$(cat "$ticket.old" 2>/dev/null)" != "$stolen" ]; then ln "$ticket.old" "$own/.lock" 2>/dev/null || :; fi
    rm -f "$ticket.old"
fi
tries=0
while :; do
    # Written anew each time: whoever holds the lock clears such tickets away.
    printf '%s\n' "$words" > "$ticket" || fail "cannot write into $dags/$own"
    ln "$ticket" "$own/.lock" 2>/dev/null || :
    rm -f "$ticket"
    taken=$(cat "$own/.lock" 2>/dev/null || :)
    [ -z "$taken" ] || break
    # It was given back this very moment; or links are not known here at all.
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || fail "cannot make a lock in $dags/$own: does its file system know hard links?"
done
if [ "$taken" != "$words" ]; then
    echo "clock $(date +%s)"
    printf 'taken - %d\n%s\n' "${#taken}" "$taken"
    exit 0
fi
echo "locked"
