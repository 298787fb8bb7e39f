# Completion of mender-oneshot for fish. Static: a board is too slow to start Python at each TAB.

function __mender_oneshot_command -d 'Succeed where the command of the line is one of these; no arguments: there is none yet'
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case -c --config -b --fallback-config -d --data -l --log-level -L --log-file --max-runtime
                set -e words[1]
            case '-*'
            case '*'
                contains -- $words[1] $argv
                return
        end
        set -q words[1]; and set -e words[1]
    end
    not set -q argv[1]
end

complete -c mender-oneshot -f

complete -c mender-oneshot -n __mender_oneshot_command -s c -l config -rF -d 'Configuration file.'
complete -c mender-oneshot -n __mender_oneshot_command -s b -l fallback-config -rF -d 'Configuration file of second rank.'
complete -c mender-oneshot -n __mender_oneshot_command -s d -l data -xa '(__fish_complete_directories)' -d 'Data directory.'
complete -c mender-oneshot -n __mender_oneshot_command -s l -l log-level -xa 'debug info warning error critical' -d 'What goes to stderr.'
complete -c mender-oneshot -n __mender_oneshot_command -s L -l log-file -rF -d 'Append the log to a file as well.'
complete -c mender-oneshot -n __mender_oneshot_command -l syslog -d "Everything to the system's log and nothing to the terminal, as cron wants it."
complete -c mender-oneshot -n __mender_oneshot_command -l no-syslog -d "Accepted for the old client's sake; has no effect."
complete -c mender-oneshot -n __mender_oneshot_command -l max-runtime -x -d 'See the commands.'
complete -c mender-oneshot -n __mender_oneshot_command -s v -l version -d 'Show the version and exit.'

complete -c mender-oneshot -n __mender_oneshot_command -a run -d 'Do the next step that is due.'
complete -c mender-oneshot -n __mender_oneshot_command -a bootstrap -d 'Make the device key.'
complete -c mender-oneshot -n __mender_oneshot_command -a auth -d 'Authorize with the server.'
complete -c mender-oneshot -n __mender_oneshot_command -a send-inventory -d 'Push the inventory.'
complete -c mender-oneshot -n __mender_oneshot_command -a check-update -d 'Ask the server for the next deployment.'
complete -c mender-oneshot -n __mender_oneshot_command -a download -d 'Fetch the artifact of the deployment found, resuming what is there.'
complete -c mender-oneshot -n __mender_oneshot_command -a install -d 'Verify the artifact, then hand it to the sub-updater.'
complete -c mender-oneshot -n __mender_oneshot_command -a verify -d 'Check whether an artifact would be accepted, and show what is in it.'
complete -c mender-oneshot -n __mender_oneshot_command -a extract -d 'Write the payload files of an accepted artifact to a new directory.'
complete -c mender-oneshot -n __mender_oneshot_command -a report -d 'Report the final status (the sub-updater does).'
complete -c mender-oneshot -n __mender_oneshot_command -a terminal -d 'Serve remote terminal sessions, then exit.'
complete -c mender-oneshot -n __mender_oneshot_command -a status -d 'Show where the device stands; touches no network.'
complete -c mender-oneshot -n __mender_oneshot_command -a show-artifact -d 'Print the name of the installed artifact.'
complete -c mender-oneshot -n __mender_oneshot_command -a doctor -d 'Check everything that a working device needs; change nothing.'

complete -c mender-oneshot -n '__mender_oneshot_command run' -l all -d 'Step after step, until nothing is due or one fails.'
complete -c mender-oneshot -n '__mender_oneshot_command run' -l only -xa 'update inventory' -d 'Leave the other to a timer of its own.'
complete -c mender-oneshot -n '__mender_oneshot_command run' -l force -d 'Whatever our own intervals; a pause the server wants is kept.'
complete -c mender-oneshot -n '__mender_oneshot_command bootstrap' -s F -l force -l forcebootstrap -d 'A new key, whatever is there.'
complete -c mender-oneshot -n '__mender_oneshot_command auth' -l fresh -d 'Get a new token even if the old one is good.'
complete -c mender-oneshot -n '__mender_oneshot_command check-update' -l exit-code -d 'Exit with 16 when there is an update.'
complete -c mender-oneshot -n '__mender_oneshot_command report' -l success -d 'The update is installed and works.'
complete -c mender-oneshot -n '__mender_oneshot_command report' -l failure -d 'The update failed; the logs are sent along.'
complete -c mender-oneshot -n '__mender_oneshot_command terminal' -l wait -x -d 'Stay reachable for so long while nobody is there; 0: for ever. Default: 300.'
complete -c mender-oneshot -n '__mender_oneshot_command terminal' -l max-sessions -x -d 'End after so many sessions; 0: no limit. Default: 0.'
complete -c mender-oneshot -n '__mender_oneshot_command verify extract' -F

complete -c mender-oneshot -n '__mender_oneshot_command run bootstrap auth send-inventory check-update download install verify extract report terminal doctor' -l max-runtime -x -d 'End after so many seconds whatever happens; 0: no limit. Default: 900, of terminal 0.'
complete -c mender-oneshot -n 'not __mender_oneshot_command' -l json -d 'One JSON object on stdout.'
complete -c mender-oneshot -s h -l help -d 'Show this message and exit.'
