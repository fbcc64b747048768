# Removes the unfinished artifacts of a namespace to which nothing was written for some days; with $dry_run=1 it only names them.
# $artifacts $owner $days $dry_run
# Tasks write there under names of their own, so folders of any user count; links do not.
# shellcheck disable=SC2016  # a command for the reader, not for the shell
go "$artifacts" || fail "the folder of artifacts $artifacts does not exist or is not accessible to you" 66 \
    'run `replayctl settings show` to check folders.artifacts'

# .IDENTITY.OWNER.NUMBER.tmp, or .old
is_unfinished() {
    case $1 in *[[:cntrl:]]*) return 1 ;; .*.tmp | .*.old) ;; *) return 1 ;; esac
    is_folder "$1" && printf '%s\n' "$1" | grep -Eqx '\..+\.[0-9a-f]{12}\.[0-9a-f]{32}\.(tmp|old)'
}

# Whether anything in it may be younger. An old artifact that is about to be replaced is as young as what replaces it.
is_young() {
    new=${1%.*}.tmp
    [ "$new" != "$1" ] && is_folder "$new" || new=$1
    [ -n "$(find "./$1" "./$new" -mtime "-$days" -print 2>&1 | head -n 1)" ]
}

sweep() { # NAME
    place=${here#"$root/"}/$1
    if is_young "$1"; then
        printf 'young %s\n' "$place"
    elif [ "$dry_run" = 1 ]; then
        if [ -w . ] && [ -w "./$1" ]; then printf 'removed %s\n' "$place"; else nature "$1"; printf 'left %s %s\n' "$owner_name" "$place"; fi
    else
        # The mark goes first: without it a writer that is alive after all publishes nothing, rather than a part.
        (enter "$1" && rm -f -- ./.open) 2>/dev/null || :
        rm -rf -- "./$1" 2>/dev/null || :
        if is_there "$1"; then nature "$1"; printf 'left %s %s\n' "$owner_name" "$place"; else printf 'removed %s\n' "$place"; fi
    fi
}

if is_there "$owner"; then
    enter "$owner"
    root=$here
    for dataset in *; do
        case $dataset in *[[:cntrl:]]*) continue ;; esac
        may_enter "$dataset" || continue
        enter "$dataset"
        base=$here
        for workload in *; do
            case $workload in *[[:cntrl:]]*) continue ;; esac
            may_enter "$workload" || continue
            enter "$workload"
            for name in .*; do ! is_unfinished "$name" || sweep "$name"; done
            go "$base" || fail "$base was moved meanwhile"
        done
        go "$root" || fail "$root was moved meanwhile"
    done
fi
echo "whole"
