package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doppel-iot/doppel/gateway/auth"
	"github.com/doppel-iot/doppel/gateway/files"
)

// mqttCommand holds tools for the embedded broker.
func mqttCommand() *cobra.Command {
	cmd := Group("mqtt", "Tools for the embedded broker")
	var file string
	passwd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Print a line of the file of --mqtt-users for a device",
		Long:  "Print a line of the file of --mqtt-users for a device. The password is read from --password-file,\nor else from the first line of standard input.",
		Args:  exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(file, cmd.InOrStdin())
			if err != nil {
				return err
			}
			hash, err := auth.HashPassword(password)
			if err != nil {
				return usagef("password: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "- {name: %q, password: %q}\n", args[0], hash)
			return nil
		},
	}
	passwd.Flags().StringVar(&file, "password-file", "", "`FILE` of the password")
	cmd.AddCommand(passwd)
	return cmd
}

func readPassword(file string, in io.Reader) (string, error) {
	if file != "" {
		password, err := files.Secret(file)
		if err != nil {
			return "", usagef("--password-file: %w", err)
		}
		return password, nil
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", usagef("no password: give --password-file, or a line on standard input")
	}
	return line, nil
}
