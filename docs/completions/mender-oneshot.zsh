#compdef mender-oneshot
# Completion of mender-oneshot for zsh. Static: a board is too slow to start Python at each TAB.

local context state state_descr line
local -A opt_args

local -a commands=(
    'run:Run the next due step.'
    'bootstrap:Create the device key.'
    'auth:Authorize with the server.'
    'send-inventory:Send the inventory.'
    'check-update:Check the server for an update.'
    'download:Download the artifact, or resume its download.'
    'install:Install the downloaded artifact, or a FILE or URL by hand.'
    'commit:Commit an artifact that was installed by hand.'
    'rollback:Roll back an artifact that was installed by hand.'
    'resume:Resume an installation that was interrupted.'
    'verify:Check whether this device would accept an artifact.'
    'extract:Verify an artifact and extract its files to a directory.'
    'report:Report the result of the update (used by sub-updaters).'
    'terminal:Serve remote terminal sessions, then exit.'
    'setup:Write the configuration of a new device, and try it.'
    'status:Show the current state; makes no network requests.'
    'history:Show the last deployments and how they ended.'
    'log:Show the log of the last deployment, or of DEPLOYMENT.'
    'show-artifact:Print the name of the installed artifact.'
    'show-provides:Print what the device provides, as key=value lines.'
    'doctor:Diagnose the setup and suggest fixes; changes nothing.'
)
local -a help=('(-h --help)'{-h,--help}'[Show this message and exit.]')
local -a always=($help '--json[Print one JSON object on stdout.]')
local -a limited=(
    $always
    '--max-runtime=[Time limit in seconds (0 = none; default 900; terminal, commit, rollback, resume: 0).]:seconds:'
)
local -a stop=(
    '--stop-before=[Stop before this state.]:state:(ArtifactInstall_Enter ArtifactCommit_Enter ArtifactCommit_Leave ArtifactRollback_Enter ArtifactFailure_Enter Cleanup)'
)

_arguments -C $help \
    '(-c --config)'{-c+,--config=}'[Configuration file.]:file:_files' \
    '(-b --fallback-config)'{-b+,--fallback-config=}'[Fallback configuration file.]:file:_files' \
    '(-d --data)'{-d+,--data=}'[Data directory.]:directory:_directories' \
    '(-l --log-level)'{-l+,--log-level=}'[Log level for stderr.]:level:(debug info warning error critical)' \
    '(-L --log-file)'{-L+,--log-file=}'[Also append the log to a file.]:file:_files' \
    '--syslog[Log to syslog instead of the terminal (for cron).]' \
    '--no-syslog[Ignored; accepted for compatibility.]' \
    '--json[Print one JSON object on stdout.]' \
    '--max-runtime=[Time limit for the command.]:seconds:' \
    '(-v --version)'{-v,--version}'[Show the version and exit.]' \
    '1:command:->command' '*::argument:->argument'

case $state in
    command) _describe command commands ;;
    argument)
        case $line[1] in
            run)
                _arguments $limited \
                    '--all[Run all due steps.]' \
                    '--only=[Only run update or inventory steps.]:what:(update inventory)' \
                    '--force[Ignore local intervals (but honor Retry-After).]' \
                    '--dry-run[Print what would be done now, and change nothing.]'
                ;;
            bootstrap)
                _arguments $limited \
                    '(-F --force --forcebootstrap)'{-F,--force,--forcebootstrap}'[Replace the existing key.]'
                ;;
            auth) _arguments $limited '--fresh[Get a new token even if the current one is valid.]' ;;
            check-update) _arguments $limited '--exit-code[Exit with 16 if an update is available.]' ;;
            report)
                _arguments $limited \
                    '--success[The update is installed and works.]' \
                    '--failure[The update failed; the logs are uploaded.]'
                ;;
            terminal)
                _arguments $limited \
                    '--wait=[Wait this many seconds for a session (0 = forever). Default: 300.]:seconds:' \
                    '--max-sessions=[Exit after this many sessions (0 = no limit). Default: 0.]:number:'
                ;;
            setup)
                _arguments $always \
                    '--device-type=[The device type.]:type:' \
                    '--hosted-mender[Use hosted Mender in the US.]' \
                    '--hosted-mender-eu[Use hosted Mender in the EU.]' \
                    '(--server-url --url)'{--server-url=,--url=}'[The https URL of your own server.]:url:' \
                    '(-E --server-cert)'{-E+,--server-cert=}'[The CA certificate of the server, in PEM.]:file:_files' \
                    '--tenant-token=[The tenant token; other users can see it in ps.]:token:' \
                    '--tenant-token-file=[Read the tenant token from a file (- is stdin).]:file:_files' \
                    '--artifact-name=[The name of the installed release.]:name:' \
                    '--update-poll=[Interval of update checks.]:seconds:' \
                    '--inventory-poll=[Interval of the inventory.]:seconds:' \
                    '--retry-poll=[Longest interval between retries.]:seconds:' \
                    '--demo-polling[Poll as often as possible, to try it out.]' \
                    '--no-scripts[Install no identity and inventory scripts.]' \
                    '--schedule[Enable the systemd timers, or else the line for cron.]' \
                    '--offline[Only write the files; do not connect to the server.]' \
                    '--force[Replace existing files; copies are kept.]' \
                    '--quiet[Print only problems and the result.]' \
                    '(-h --help)'{-h,--help}'[Show this message and exit.]'
                ;;
            install) _arguments $limited $stop '1:artifact:_files' ;;
            commit|rollback|resume) _arguments $limited $stop ;;
            verify) _arguments $limited '1:artifact:_files' ;;
            extract) _arguments $limited '1:artifact:_files' '2:directory:_directories' ;;
            send-inventory|download) _arguments $limited ;;
            doctor) _arguments $limited '--bundle=[Also write a report without secrets.]:file:_files' ;;
            status|history|show-artifact|show-provides) _arguments $always ;;
            log) _arguments $always '1:deployment:' ;;
        esac
        ;;
esac
