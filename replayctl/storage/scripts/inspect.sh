# Reports the state of both folders for one namespace. Writes nothing.
# $dags $submit $owner $team $suffix; then the requested stub names, `--`, and the releases to compare with their manifests.
go "$dags" || fail "the DAG folder $dags does not exist or is not accessible to you" 66
echo "clock $(date +%s)"
requested=' '
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    requested="$requested$1 "
    shift
done
[ "$#" -eq 0 ] || shift
compared=$*
end='
'

releases() { # KIND FILE: the releases in the present folder that have that file
    for name in r_*; do
        case $name in *[!0-9a-z_]*) continue ;; esac
        ! is_folder "$name" || ! is_file "$name/$2" || echo "$1 $name"
    done
}
compare() { # KIND NAME
    is_there "$2" || return 0
    enter_own "$2"
    ! is_file .manifest || emit "$1_manifest" "$2" .manifest
    # Anything but files and folders is listed without a checksum.
    text=$(find . -type d -name __pycache__ -prune -o -type f ! -path ./.manifest -exec cksum {} + -o ! -type d ! -type f -print 2>/dev/null) || :
    text="$text$end"
    printf '%s %s %d\n%s\n' "$1_sums" "$2" "${#text}" "$text"
    cd -P .. || exit
    here=${here%/*}
}
if is_there "$STORE" && enter "$STORE" && is_there "$owner"; then
    enter_own "$owner"
    check_files
    echo "pointer $pointer"
    if is_there .lock; then
        read_lock
        kind='' owner_name=''
        is_file .lock || nature .lock
        echo "mark $mark"
        [ -z "$kind" ] || printf 'nature %s %s\n' "$kind" "$owner_name"
        printf 'lock - %d\n%s\n' "${#lock}" "$lock"
    fi
    releases release .release.json
    for name in $compared; do [ "$name" != "$pointer" ] || pointer=; done
    for name in $pointer $compared; do compare release "$name"; done
fi

go "$dags" || fail "the DAG folder $dags does not exist or is not accessible to you" 66
# Only files that could be ours by their names are read, and neither links nor FIFOs.
set --
for file in dag_*.py; do
    # No name of ours has other characters.
    case $file in *[!A-Za-z0-9_.-]*) continue ;; esac
    is_there "$file" || continue
    case $file in *"$suffix.py") ! is_file "$file" || { set -- "$@" "$file" && continue; } ;; esac
    case $requested in
        *" $file "*) nature "$file" && printf 'obstacle %s %s %s\n' "$file" "$kind" "$owner_name" ;;
        *) echo "foreign $file" ;;
    esac
done
[ "$#" -eq 0 ] || {
    mine=$(grep -l -e "^# replayctl-stub: owner=$owner " "$@" 2>/dev/null) || :
    for file; do
        case "$end$mine$end$requested" in
            *"$end$file$end"* | *" $file "*) emit stub "$file" "$file" ;;
            *) echo "foreign $file" ;;
        esac
    done
    lines=$(ls -ldn -- "$@" 2>/dev/null) || :
    IFS=$end
    for line in $lines; do
        unset IFS
        # shellcheck disable=SC2086  # split into its fields
        set -- $line
        uid=$3
        shift $(($# - 1))
        is_ours || { nature "$1" && printf 'obstacle %s %s %s\n' "$1" "$kind" "$owner_name"; }
    done
    unset IFS
}

if [ -d "$submit" ]; then
    go "$submit" || fail "the folder $submit is not accessible to you"
    if is_there "$owner"; then
        enter_own "$owner"
        releases submitted .manifest
        for name in $compared; do compare submit "$name"; done
    fi
fi
echo "whole"
