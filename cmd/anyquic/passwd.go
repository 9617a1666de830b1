package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/anyquic/anyquic/mqtt/auth"
)

func newPasswd() *cobra.Command {
	var scram bool
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Print the line of a user for --users of anyquic serve",
		Long: `Print the line of a user for --users of anyquic serve.

The password is read from the terminal, without being shown, or is the first line
of standard input. The line has no password in it, only a hash: argon2id, or with
--scram one with which the user may also prove the password without sending it.`,
		Example: `  anyquic mqtt passwd alice >> users
  printf '%s\n' "$PASSWORD" | anyquic mqtt passwd alice --scram >> users`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if name == "" || strings.ContainsAny(name, ":\r\n\x00") || strings.TrimSpace(name) != name || name[0] == '#' {
				return fmt.Errorf("user name %q: it must not be empty, have colons or line ends, begin with # or have spaces around it", name)
			}
			password, err := readPassword(cmd)
			if err != nil {
				return err
			}
			hash, err := auth.HashPassword(password, scram)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s:%s\n", name, hash)
			return err
		},
	}
	cmd.Flags().BoolVar(&scram, "scram", false, "a SCRAM-SHA-256 hash")
	return cmd
}

func readPassword(cmd *cobra.Command) ([]byte, error) {
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		ask := func(prompt string) ([]byte, error) {
			fmt.Fprint(cmd.ErrOrStderr(), prompt)
			p, err := term.ReadPassword(int(f.Fd()))
			fmt.Fprintln(cmd.ErrOrStderr())
			return p, err
		}
		first, err := ask("Password: ")
		if err != nil {
			return nil, err
		}
		second, err := ask("Again: ")
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(first, second) {
			return nil, errors.New("the two passwords differ")
		}
		return first, nil
	}
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1<<17)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
