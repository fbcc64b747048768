# Wheels and jars below $submit/$owner/packages: one folder p_<start of its sha256> per package, with its notes, moved there by
# one rename and never changed. Incomplete uploads are kept in a folder that only we can enter.
# $submit $owner $team $dir_mode $file_mode $package_mode
go_to_packages() { # [make]
    [ -z "${1:-}" ] || [ -d "$submit" ] || mkdir -m "$dir_mode" -- "$submit" 2>/dev/null || :
    [ -n "${1:-}" ] || [ -d "$submit" ] || ! [ -d "${submit%/*}" ] || { echo whole; exit 0; }
    # shellcheck disable=SC2016  # a command for the reader, not for the shell
    go "$submit" || fail "the folder $submit does not exist or is not accessible to you" 66 \
        'run `replayctl settings show` to check folders.spark_submit_files'
    for folder in "$owner" packages; do
        if [ -n "${1:-}" ]; then
            own_folder "$folder" "$dir_mode"
        else
            is_there "$folder" || { echo whole; exit 0; }
            enter_own "$folder"
        fi
    done
    packages=$here
}

# The sha256 of stdin. OpenSSL is several times as fast as others where the processor supports it.
digest() {
    if command -v openssl >/dev/null 2>&1; then
        hex=$(openssl dgst -sha256 -r)
    elif command -v sha256sum >/dev/null 2>&1; then
        hex=$(sha256sum)
    else
        hex=$(shasum -a 256)
    fi
    printf '%s\n' "${hex%% *}"
}

# Shows that we are alive while large files are read. Killed with KILL, so that no trap can come too early or too late; the sleep
# that it leaves behind holds nothing open.
heartbeat() {
    (
        while :; do
            sleep 10 >/dev/null 2>&1
            echo alive
        done
    ) </dev/null 2>/dev/null &
    beat=$!
}
stop_heartbeat() {
    [ -n "${beat:-}" ] || return 0
    kill -KILL "$beat" 2>/dev/null || :
    wait "$beat" 2>/dev/null || :
    beat=
}

# Enters the folder of incomplete uploads.
enter_parts() { # [make]
    [ -z "${1:-}" ] || make_folder ".parts.$me" 077
    is_there ".parts.$me" || return 1
    parts=.parts.$me
    enter "$parts"
    facts . || fail "cannot read $here"
    case $mode in drwx--[-S]---*) ;; *) fail "$here is open to others; it was not used" 73 "remove it: rm -r '$here'" ;; esac
    [ "$uid" = "$me" ] || { go "$packages" && in_the_way "$parts"; }
}

# NAME: whether it is a regular file of ours without other links; $size is its size.
is_part() {
    facts "$1" || return 1
    case $mode in -*) ;; *) return 1 ;; esac
    [ "$uid" = "$me" ] && [ "$links" = 1 ]
}

# FILE SHA256: keeps the file as the part of a package, unless there is a longer one.
keep_part() {
    is_part "$1" || return 0
    own_size=$size
    if is_part "part.$2" && [ "$size" -gt "$own_size" ]; then
        rm -f -- "$1"
    else
        mv -f -- "$1" "part.$2"
    fi
}

# A file that no upload has written to for some time is left from one that was killed: it can be resumed.
adopt() { # SHA256
    for work in "work.$1".*; do
        ! is_part "$work" || [ -z "$(find "./$work" -mmin +10)" ] || keep_part "$work" "$1"
    done
}

# NAME: the stored package's file in the present folder, $file; fails unless it is the only one, and a regular file.
stored_file() {
    file=
    for entry in * .[!.]*; do
        is_there "$entry" || continue
        case $entry in
            .package.json) ;;
            *[!A-Za-z0-9._+-]*) return 1 ;;
            *) [ -z "$file" ] || return 1; file=$entry ;;
        esac
    done
    [ -n "$file" ] && facts "$file" || return 1
    case $mode in -*) ;; *) return 1 ;; esac
    [ "$links" = 1 ] && is_ours
}
