# Completion of mender-oneshot for bash. Static: a board is too slow to start Python at each TAB.

_mender_oneshot() {
    local word=$2 previous=$3 command='' i words=''
    # bash takes --option=value for three words.
    [[ $word == = ]] && word=''
    [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}
    COMPREPLY=()

    case $previous in
        -c | --config | -b | --fallback-config | -L | --log-file | -E | --server-cert | --tenant-token-file)
            compopt -o default
            return
            ;;
        -d | --data)
            compopt -o dirnames
            return
            ;;
        -l | --log-level) words='debug info warning error critical' ;;
        --only) words='update inventory' ;;
        --max-runtime | --wait | --max-sessions) return ;;
        --device-type | --server-url | --url | --tenant-token | --artifact-name) return ;;
        --update-poll | --inventory-poll | --retry-poll) return ;;
    esac
    if [[ $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
        return
    fi

    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -c | --config | -b | --fallback-config | -d | --data | -l | --log-level | -L | --log-file | --max-runtime)
                ((i++))
                [[ ${COMP_WORDS[i]} == = ]] && ((i++))
                ;;
            -*) ;;
            *)
                command=${COMP_WORDS[i]}
                break
                ;;
        esac
    done

    case $command in
        '')
            words='--config --fallback-config --data --log-level --log-file --syslog --no-syslog --json
                --max-runtime --version --help -c -b -d -l -L -v -h'
            [[ $word == -* ]] || words='run bootstrap auth send-inventory check-update download install commit rollback
                resume verify extract report terminal setup status history log show-artifact show-provides
                doctor'
            ;;
        run) words='--all --only --force --dry-run --max-runtime' ;;
        bootstrap) words='--force --forcebootstrap -F --max-runtime' ;;
        auth) words='--fresh --max-runtime' ;;
        check-update) words='--exit-code --max-runtime' ;;
        report) words='--success --failure --max-runtime' ;;
        terminal) words='--wait --max-sessions --max-runtime' ;;
        setup)
            words='--device-type --hosted-mender --hosted-mender-eu --server-url --url -E --server-cert
                --tenant-token --tenant-token-file --artifact-name --update-poll --inventory-poll
                --retry-poll --demo-polling --no-scripts --schedule --offline --force --quiet -h --help'
            ;;
        verify | extract)
            if [[ $word != -* ]]; then
                compopt -o default
                return
            fi
            words='--max-runtime'
            ;;
        install)
            if [[ $word != -* ]]; then
                compopt -o default
                return
            fi
            words='--stop-before --max-runtime'
            ;;
        commit | rollback | resume) words='--stop-before --max-runtime' ;;
        doctor)
            if [[ ${COMP_WORDS[COMP_CWORD - 1]} == --bundle ]]; then
                compopt -o default
                return
            fi
            words='--bundle --max-runtime'
            ;;
        send-inventory | download) words='--max-runtime' ;;
        status | history | log | show-artifact | show-provides) ;;
        *) return ;;
    esac
    [[ $command ]] && words+=' --json --help -h'
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _mender_oneshot mender-oneshot
