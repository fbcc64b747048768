# Reports who released what. Writes nothing. $dags $submit $owner $team
go "$dags" || fail "the DAG folder $dags does not exist or is not accessible to you" 66
echo "clock $(date +%s)"
if is_there "$STORE" && enter "$STORE" && is_there "$owner"; then
    enter_own "$owner"
    check_files
    echo "pointer $pointer"
    set --
    for name in r_*; do
        case $name in *[!0-9a-z_]*) ;; *) set -- "$@" "$name" ;; esac
    done
    for name; do
        ! is_folder "$name" || ! is_file "$name/.release.json" || emit release "$name" "$name/.release.json"
    done
    if is_file audit.log; then
        text=$(tail -c "$KEPT_BYTES" audit.log && echo .)
        printf 'audit - %d\n%s\n' "${#text}" "$text"
    fi
fi
echo "whole"
