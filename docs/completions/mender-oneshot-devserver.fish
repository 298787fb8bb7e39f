# Completion of mender-oneshot-devserver for fish.

function __mender_oneshot_devserver_command -d 'Succeed if the command on the line is one of these; without arguments: if there is none yet'
    set -l words (commandline -opc)
    set -e words[1]
    for word in $words
        if not string match -q -- '-*' $word
            contains -- $word $argv
            return
        end
    end
    not set -q argv[1]
end

complete -c mender-oneshot-devserver -f

complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -l version -d 'Show the version and exit.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a serve -d 'Run the server until a signal ends it.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a devices -d 'List the devices.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a accept -d 'Accept a device.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a inventory -d 'Print the inventory of a device.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a upload -d 'Upload an artifact.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a deploy -d 'Deploy an artifact, given by its name.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a deployments -d 'List the deployments, newest first.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a log -d 'Print the results of a deployment.'
complete -c mender-oneshot-devserver -n __mender_oneshot_devserver_command -a abort -d 'Abort a deployment.'

complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l board -d 'Serve a board on the network, and print how to set it up.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l host -x -d 'Address to listen on.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l port -x -d 'Port of the server.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l storage-port -x -d 'Port of the artifact links; 0 = any free one.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l name -x -d 'Additional name or address of the server.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l http -d 'Disable TLS.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l accept-all -d 'Accept every device.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l user -x -d 'The only user who can log in.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l link-lifetime -x -d 'Seconds until an artifact link expires.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l jwt-lifetime -x -d 'Seconds until a device\'s token expires.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command serve' -l quiet -d 'Do not print a line for each request.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command accept' -l all -d 'Accept all pending devices.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command upload' -F
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command deploy' -l force -d 'Install even if the device has this release already.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command deploy' -l wait -d 'Wait for the results; exit with 70 if the update failed.'

complete -c mender-oneshot-devserver -n 'not __mender_oneshot_devserver_command' -l directory -xa '(__fish_complete_directories)' -d 'Directory of the server.'
complete -c mender-oneshot-devserver -n '__mender_oneshot_devserver_command devices accept inventory upload deploy deployments log abort' -l json -d 'Print one JSON object.'
complete -c mender-oneshot-devserver -s h -l help -d 'Show this message and exit.'
