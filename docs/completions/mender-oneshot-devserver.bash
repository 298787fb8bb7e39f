# Completion of mender-oneshot-devserver for bash.

_mender_oneshot_devserver() {
    local word=$2 previous=$3 command='' i words=''
    # bash takes --option=value for three words.
    [[ $word == = ]] && word=''
    [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}
    COMPREPLY=()

    case $previous in
        --directory)
            compopt -o dirnames
            return
            ;;
        --host | --port | --storage-port | --name | --user | --link-lifetime | --jwt-lifetime) return ;;
    esac

    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} != -* ]]; then
            command=${COMP_WORDS[i]}
            break
        fi
    done

    case $command in
        '')
            words='--version --help -h'
            [[ $word == -* ]] || words='serve devices accept inventory upload deploy deployments log abort'
            ;;
        serve)
            words='--directory --board --host --port --storage-port --name --http --accept-all --user --link-lifetime
                --jwt-lifetime --quiet --help -h'
            ;;
        accept) words='--all --directory --json --help -h' ;;
        deploy) words='--force --wait --directory --json --help -h' ;;
        upload)
            if [[ $word != -* ]]; then
                compopt -o default
                return
            fi
            words='--directory --json --help -h'
            ;;
        devices | inventory | deployments | log | abort) words='--directory --json --help -h' ;;
        *) return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _mender_oneshot_devserver mender-oneshot-devserver
