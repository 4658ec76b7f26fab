#!/bin/sh
# A docker command without an engine. Its containers are folders of STATE/containers; one that runs is a session of its own.
S=STATE
for last; do :; done
c=$S/containers/$last
printf '%s\n' "$*" >> $S/calls

none() { echo "Error response from daemon: No such container: $last" >&2; }

case "$1" in
version)
    [ ! -e $S/down ] || { echo 'Cannot connect to the Docker daemon at unix:///fake.sock. Is the docker daemon running?' >&2; exit 1; }
    echo 28.0.0 ;;
ps)
    for c in $S/containers/*; do
        [ -e $c/labels ] && grep -qxF "${5#label=}" $c/labels || continue
        state=running
        [ ! -e $c/code ] || state=exited
        printf '%s\t%s\t%s\n' "${c##*/}" $state "$(sed -n 's/^minflow.auto_remove=//p' $c/labels)"
    done ;;
image)
    [ -e $S/images/$last ] || { echo "Error response from daemon: No such image: $last" >&2; exit 1; } ;;
pull)
    echo "latest: Pulling from $last"
    [ ! -e $S/unreachable ] || { echo 'Error response from daemon: Get "https://registry/v2/": dial tcp: i/o timeout' >&2; exit 1; }
    mkdir -p $S/images && : > $S/images/$last ;;
create)
    while [ $# -gt 1 ]; do
        shift
        case "$1" in
        --name) last=$2; c=$S/making.$2; rm -rf $c; mkdir -p $S/containers $c/env $c/words ;;
        --label) echo "$2" >> $c/labels ;;
        --env-file)
            while IFS= read -r line; do printf %s "${line#*=}" > "$c/env/${line%%=*}"; done < "$2" ;;
        --env) eval "printf %s \"\$$2\"" > $c/env/$2 ;;
        --mount)
            source=${2#*source=}; source=${source%%,*}
            case "$source" in *unseen*) echo "Error response from daemon: bind source path does not exist: $source" >&2; exit 1 ;; esac ;;
        --*) ;;
        *) break ;;
        esac
        shift
    done
    shift
    n=100
    for word; do n=$((n + 1)); printf %s "$word" > $c/words/$n; done
    # The engine does it, whatever becomes of who asks. A test may hold it here.
    setsid sh -c 'while [ -e $1/slow ]; do : > $1/creating; sleep 0.01; done; mv $2 $3 && : > $1/created' - $S $c $S/containers/$last &
    wait $!
    echo 0123456789abcdef ;;
start)
    set --
    for file in $c/env/*; do set -- "$@" "${file##*/}=$(cat $file)"; done
    for file in $c/words/*; do set -- "$@" "$(cat $file)"; done
    # What it runs may take the signals as it likes; who awaits it may not.
    setsid sh -c 'c=$1; shift; trap : TERM INT; echo $$ > $c/pid.new; mv $c/pid.new $c/pid
        env -i PATH="$PATH" "$@"; code=$?; echo $code > $c/code.new; mv $c/code.new $c/code' - $c "$@" < /dev/null &
    wait $!
    exit $(cat $c/code) ;;
kill)
    [ -e $c/pid ] && kill -s ${2#--signal=} -- -$(cat $c/pid) || { none; exit 1; } ;;
container)
    [ -e $c/code ] || { none; exit 1; }
    printf '{"Status":"exited","Running":false,"OOMKilled":false,"ExitCode":%s,"Error":""}\n' $(cat $c/code) ;;
rm)
    [ -e $c ] || { none; exit 0; }
    [ ! -e $c/pid ] || kill -s KILL -- -$(cat $c/pid) 2> /dev/null
    rm -rf $c ;;
esac
