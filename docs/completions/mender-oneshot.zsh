#compdef mender-oneshot
# Completion of mender-oneshot for zsh. Static: a board is too slow to start Python at each TAB.

local context state state_descr line
local -A opt_args

local -a commands=(
    'run:Do the next step that is due.'
    'bootstrap:Make the device key.'
    'auth:Authorize with the server.'
    'send-inventory:Push the inventory.'
    'check-update:Ask the server for the next deployment.'
    'download:Fetch the artifact of the deployment found, resuming what is there.'
    'install:Verify the artifact, then hand it to the sub-updater.'
    'verify:Check whether an artifact would be accepted, and show what is in it.'
    'extract:Write the payload files of an accepted artifact to a new directory.'
    'report:Report the final status (the sub-updater does).'
    'terminal:Serve remote terminal sessions, then exit.'
    'status:Show where the device stands; touches no network.'
    'show-artifact:Print the name of the installed artifact.'
    'doctor:Check everything that a working device needs; change nothing.'
)
local -a help=('(-h --help)'{-h,--help}'[Show this message and exit.]')
local -a always=($help '--json[One JSON object on stdout.]')
local -a limited=(
    $always
    '--max-runtime=[End after so many seconds whatever happens; 0: no limit. Default: 900, of terminal 0.]:seconds:'
)

_arguments -C $help \
    '(-c --config)'{-c+,--config=}'[Configuration file.]:file:_files' \
    '(-b --fallback-config)'{-b+,--fallback-config=}'[Configuration file of second rank.]:file:_files' \
    '(-d --data)'{-d+,--data=}'[Data directory.]:directory:_directories' \
    '(-l --log-level)'{-l+,--log-level=}'[What goes to stderr.]:level:(debug info warning error critical)' \
    '(-L --log-file)'{-L+,--log-file=}'[Append the log to a file as well.]:file:_files' \
    "--syslog[Everything to the system's log and nothing to the terminal, as cron wants it.]" \
    "--no-syslog[Accepted for the old client's sake; has no effect.]" \
    '--max-runtime=[See the commands.]:seconds:' \
    '(-v --version)'{-v,--version}'[Show the version and exit.]' \
    '1:command:->command' '*::argument:->argument'

case $state in
    command) _describe command commands ;;
    argument)
        case $line[1] in
            run)
                _arguments $limited \
                    '--all[Step after step, until nothing is due or one fails.]' \
                    '--only=[Leave the other to a timer of its own.]:what:(update inventory)' \
                    '--force[Whatever our own intervals; a pause the server wants is kept.]'
                ;;
            bootstrap)
                _arguments $limited \
                    '(-F --force --forcebootstrap)'{-F,--force,--forcebootstrap}'[A new key, whatever is there.]'
                ;;
            auth) _arguments $limited '--fresh[Get a new token even if the old one is good.]' ;;
            check-update) _arguments $limited '--exit-code[Exit with 16 when there is an update.]' ;;
            report)
                _arguments $limited \
                    '--success[The update is installed and works.]' \
                    '--failure[The update failed; the logs are sent along.]'
                ;;
            terminal)
                _arguments $limited \
                    '--wait=[Stay reachable for so long while nobody is there; 0: for ever. Default: 300.]:seconds:' \
                    '--max-sessions=[End after so many sessions; 0: no limit. Default: 0.]:number:'
                ;;
            verify) _arguments $limited '1:artifact:_files' ;;
            extract) _arguments $limited '1:artifact:_files' '2:directory:_directories' ;;
            send-inventory|download|install|doctor) _arguments $limited ;;
            status|show-artifact) _arguments $always ;;
        esac
        ;;
esac
