# Completion of mender-oneshot for fish. Static: a board is too slow to start Python at each TAB.

function __mender_oneshot_command -d 'Succeed if the command on the line is one of these; without arguments: if there is none yet'
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
complete -c mender-oneshot -n __mender_oneshot_command -s b -l fallback-config -rF -d 'Fallback configuration file.'
complete -c mender-oneshot -n __mender_oneshot_command -s d -l data -xa '(__fish_complete_directories)' -d 'Data directory.'
complete -c mender-oneshot -n __mender_oneshot_command -s l -l log-level -xa 'debug info warning error critical' -d 'Log level for stderr.'
complete -c mender-oneshot -n __mender_oneshot_command -s L -l log-file -rF -d 'Also append the log to a file.'
complete -c mender-oneshot -n __mender_oneshot_command -l syslog -d 'Log to syslog instead of the terminal (for cron).'
complete -c mender-oneshot -n __mender_oneshot_command -l no-syslog -d 'Ignored; accepted for compatibility.'
complete -c mender-oneshot -n __mender_oneshot_command -l max-runtime -x -d 'Time limit for the command.'
complete -c mender-oneshot -n __mender_oneshot_command -s v -l version -d 'Show the version and exit.'

complete -c mender-oneshot -n __mender_oneshot_command -a run -d 'Run the next due step.'
complete -c mender-oneshot -n __mender_oneshot_command -a bootstrap -d 'Create the device key.'
complete -c mender-oneshot -n __mender_oneshot_command -a auth -d 'Authorize with the server.'
complete -c mender-oneshot -n __mender_oneshot_command -a send-inventory -d 'Send the inventory.'
complete -c mender-oneshot -n __mender_oneshot_command -a check-update -d 'Check the server for an update.'
complete -c mender-oneshot -n __mender_oneshot_command -a download -d 'Download the artifact, or resume its download.'
complete -c mender-oneshot -n __mender_oneshot_command -a install -d 'Install the downloaded artifact, or a FILE or URL by hand.'
complete -c mender-oneshot -n __mender_oneshot_command -a commit -d 'Commit an artifact that was installed by hand.'
complete -c mender-oneshot -n __mender_oneshot_command -a rollback -d 'Roll back an artifact that was installed by hand.'
complete -c mender-oneshot -n __mender_oneshot_command -a resume -d 'Resume an installation that was interrupted.'
complete -c mender-oneshot -n __mender_oneshot_command -a verify -d 'Check whether this device would accept an artifact.'
complete -c mender-oneshot -n __mender_oneshot_command -a extract -d 'Verify an artifact and extract its files to a directory.'
complete -c mender-oneshot -n __mender_oneshot_command -a report -d 'Report the result of the update (used by sub-updaters).'
complete -c mender-oneshot -n __mender_oneshot_command -a terminal -d 'Serve remote terminal sessions, then exit.'
complete -c mender-oneshot -n __mender_oneshot_command -a setup -d 'Write the configuration of a new device, and try it.'
complete -c mender-oneshot -n __mender_oneshot_command -a status -d 'Show the current state; makes no network requests.'
complete -c mender-oneshot -n __mender_oneshot_command -a history -d 'Show the last deployments and how they ended.'
complete -c mender-oneshot -n __mender_oneshot_command -a log -d 'Show the log of the last deployment, or of DEPLOYMENT.'
complete -c mender-oneshot -n __mender_oneshot_command -a show-artifact -d 'Print the name of the installed artifact.'
complete -c mender-oneshot -n __mender_oneshot_command -a show-provides -d 'Print what the device provides, as key=value lines.'
complete -c mender-oneshot -n __mender_oneshot_command -a doctor -d 'Diagnose the setup and suggest fixes; changes nothing.'

complete -c mender-oneshot -n '__mender_oneshot_command run' -l all -d 'Run all due steps.'
complete -c mender-oneshot -n '__mender_oneshot_command run' -l only -xa 'update inventory' -d 'Only run update or inventory steps.'
complete -c mender-oneshot -n '__mender_oneshot_command run' -l force -d 'Ignore local intervals (but honor Retry-After).'
complete -c mender-oneshot -n '__mender_oneshot_command run' -l dry-run -d 'Print what would be done now, and change nothing.'
complete -c mender-oneshot -n '__mender_oneshot_command bootstrap' -s F -l force -l forcebootstrap -d 'Replace the existing key.'
complete -c mender-oneshot -n '__mender_oneshot_command auth' -l fresh -d 'Get a new token even if the current one is valid.'
complete -c mender-oneshot -n '__mender_oneshot_command check-update' -l exit-code -d 'Exit with 16 if an update is available.'
complete -c mender-oneshot -n '__mender_oneshot_command report' -l success -d 'The update is installed and works.'
complete -c mender-oneshot -n '__mender_oneshot_command report' -l failure -d 'The update failed; the logs are uploaded.'
complete -c mender-oneshot -n '__mender_oneshot_command terminal' -l wait -x -d 'Wait this many seconds for a session (0 = forever). Default: 300.'
complete -c mender-oneshot -n '__mender_oneshot_command terminal' -l max-sessions -x -d 'Exit after this many sessions (0 = no limit). Default: 0.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l device-type -x -d 'The device type.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l hosted-mender -d 'Use hosted Mender in the US.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l hosted-mender-eu -d 'Use hosted Mender in the EU.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l server-url -l url -x -d 'The https URL of your own server.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -s E -l server-cert -rF -d 'The CA certificate of the server, in PEM.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l tenant-token -x -d 'The tenant token; other users can see it in ps.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l tenant-token-file -rF -d 'Read the tenant token from a file (- is stdin).'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l artifact-name -x -d 'The name of the installed release.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l update-poll -x -d 'Interval of update checks.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l inventory-poll -x -d 'Interval of the inventory.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l retry-poll -x -d 'Longest interval between retries.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l demo-polling -d 'Poll as often as possible, to try it out.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l no-scripts -d 'Install no identity and inventory scripts.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l schedule -d 'Enable the systemd timers, or else the line for cron.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l offline -d 'Only write the files; do not connect to the server.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l force -d 'Replace existing files; copies are kept.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -l quiet -d 'Print only problems and the result.'
complete -c mender-oneshot -n '__mender_oneshot_command setup' -s h -l help -d 'Show this message and exit.'
complete -c mender-oneshot -n '__mender_oneshot_command doctor' -l bundle -r -F -d 'Also write a report without secrets.'
complete -c mender-oneshot -n '__mender_oneshot_command install commit rollback resume' -l stop-before -xa 'ArtifactInstall_Enter ArtifactCommit_Enter ArtifactCommit_Leave ArtifactRollback_Enter ArtifactFailure_Enter Cleanup' -d 'Stop before this state.'
complete -c mender-oneshot -n '__mender_oneshot_command install verify extract' -F

complete -c mender-oneshot -n '__mender_oneshot_command run bootstrap auth send-inventory check-update download install commit rollback resume verify extract report terminal doctor' -l max-runtime -x -d 'Time limit in seconds (0 = none; default 900; terminal, commit, rollback, resume: 0).'
complete -c mender-oneshot -l json -d 'Print one JSON object on stdout.'
complete -c mender-oneshot -s h -l help -d 'Show this message and exit.'
