#compdef mender-oneshot-devserver
# Completion of mender-oneshot-devserver for zsh.

local context state state_descr line
local -A opt_args

local -a commands=(
    'serve:Run the server until a signal ends it.'
    'devices:List the devices.'
    'accept:Accept a device.'
    'inventory:Print the inventory of a device.'
    'upload:Upload an artifact.'
    'deploy:Deploy an artifact, given by its name.'
    'deployments:List the deployments, newest first.'
    'log:Print the results of a deployment.'
    'abort:Abort a deployment.'
)
local -a help=('(-h --help)'{-h,--help}'[Show this message and exit.]')
local -a directory=($help '--directory=[Directory of the server.]:directory:_directories')
local -a always=($directory '--json[Print one JSON object.]')

_arguments -C $help '--version[Show the version and exit.]' '1:command:->command' '*::argument:->argument'

case $state in
    command) _describe command commands ;;
    argument)
        case $line[1] in
            serve)
                _arguments $directory \
                    '--board[Serve a board on the network, and print how to set it up.]' \
                    '--host=[Address to listen on.]:address:' \
                    '--port=[Port of the server.]:port:' \
                    '--storage-port=[Port of the artifact links; 0 = any free one.]:port:' \
                    '*--name=[Additional name or address of the server.]:name:' \
                    '--http[Disable TLS.]' \
                    '--accept-all[Accept every device.]' \
                    '--user=[The only user who can log in.]:login:' \
                    '--link-lifetime=[Seconds until an artifact link expires.]:seconds:' \
                    "--jwt-lifetime=[Seconds until a device's token expires.]:seconds:" \
                    '--quiet[Do not print a line for each request.]'
                ;;
            accept) _arguments $always '--all[Accept all pending devices.]' '1:device:' ;;
            inventory) _arguments $always '1:device:' ;;
            upload) _arguments $always '1:artifact:_files' ;;
            deploy)
                _arguments $always \
                    '--force[Install even if the device has this release already.]' \
                    '--wait[Wait for the results; exit with 70 if the update failed.]' \
                    '1:artifact:' '*:device:'
                ;;
            log) _arguments $always '1:deployment:' '2:device:' ;;
            abort) _arguments $always '1:deployment:' ;;
            devices|deployments) _arguments $always ;;
        esac
        ;;
esac
