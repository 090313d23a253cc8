package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/config"
)

const defaultConfig = config.DefaultFile

// configFlag adds the flag that names the configuration file. Its value is empty
// where there is no file and the environment has the configuration.
func configFlag(cmd *cobra.Command) *string {
	path := configFile(os.Environ())
	fileFlag(cmd, &path, "config", "the configuration `file` (default $PGWICKET_CONFIG, or else "+defaultConfig+")")
	return &path
}

// configFile returns the file that is read where no flag names one. Only the default
// may be missing, if the environment has keys. This is decided once: if the file is
// removed later, a reload fails.
func configFile(environ []string) string {
	if path := os.Getenv(config.FileVariable); path != "" {
		return path
	}
	if _, err := os.Stat(defaultConfig); errors.Is(err, fs.ErrNotExist) && config.InEnvironment(environ) {
		return ""
	}
	return defaultConfig
}

// fileFlag adds a flag for the name of a file, which shells complete.
func fileFlag(cmd *cobra.Command, to *string, name, usage string) {
	cmd.Flags().Var((*fileName)(to), name, usage)
	cmd.Flags().Lookup(name).DefValue = "" // the usage has it
}

// fileName is the value of such a flag. An empty one is most often a variable of a
// shell that is not set, and is refused.
type fileName string

func (f *fileName) String() string { return string(*f) }

func (*fileName) Type() string { return "file" }

func (f *fileName) Set(path string) error {
	if path == "" {
		return errors.New("it names no file")
	}
	*f = fileName(path)
	return nil
}

// textFlag adds a flag for a text that shells cannot complete.
func textFlag(cmd *cobra.Command, to *string, name, value, usage string) {
	cmd.Flags().StringVar(to, name, value, usage)
	completeWords(cmd, name)
}

// choiceFlag adds a flag that takes one of a few words; the first is the default.
func choiceFlag(cmd *cobra.Command, name, usage string, words ...string) *string {
	c := &choice{words[0], words}
	cmd.Flags().Var(c, name, usage+": "+strings.Join(words, " or "))
	completeWords(cmd, name, words...)
	return &c.value
}

type choice struct {
	value string
	words []string
}

func (c *choice) String() string { return c.value }

func (*choice) Type() string { return "word" }

func (c *choice) Set(word string) error {
	if !slices.Contains(c.words, word) {
		return fmt.Errorf("it must be %s", strings.Join(c.words, " or "))
	}
	c.value = word
	return nil
}

// timeoutFlag adds the flag that bounds a wait.
func timeoutFlag(cmd *cobra.Command, value time.Duration, usage string) *time.Duration {
	timeout := cmd.Flags().Duration("timeout", value, usage)
	completeWords(cmd, "timeout")
	return timeout
}

// completeWords has shells complete these words for a flag, and no files.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	// It fails only for a flag that does not exist, which a test would find.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}
