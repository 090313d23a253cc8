package cli

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

// ConfigFlag adds the flag that names the configuration file. Its value is empty
// where there is no file and the environment has the configuration.
func ConfigFlag(cmd *cobra.Command) *string {
	path := configFile(os.Environ())
	FileFlag(cmd, &path, "config", "the configuration `file` (default $PGWICKET_CONFIG, or else "+config.DefaultFile+")")
	return &path
}

// configFile returns the file that is read where no flag names one. Only the default
// may be missing, if the environment has keys. This is decided once: if the file is
// removed later, a reload fails.
func configFile(environ []string) string {
	if path := os.Getenv(config.FileVariable); path != "" {
		return path
	}
	if _, err := os.Stat(config.DefaultFile); errors.Is(err, fs.ErrNotExist) && config.InEnvironment(environ) {
		return ""
	}
	return config.DefaultFile
}

// FileFlag adds a flag for the name of a file, which shells complete.
func FileFlag(cmd *cobra.Command, to *string, name, usage string) {
	cmd.Flags().Var((*FileName)(to), name, usage)
	cmd.Flags().Lookup(name).DefValue = "" // the usage has it
}

// FileName is the value of a flag for the name of a file. An empty one is most often a variable of a
// shell that is not set, and is refused.
type FileName string

// String is a method of pflag.Value.
func (f *FileName) String() string { return string(*f) }

// Type is what shells complete by.
func (*FileName) Type() string { return "file" }

// Set is a method of pflag.Value.
func (f *FileName) Set(path string) error {
	if path == "" {
		return errors.New("it names no file")
	}
	*f = FileName(path)
	return nil
}

// TextFlag adds a flag for a text that shells cannot complete.
func TextFlag(cmd *cobra.Command, to *string, name, value, usage string) {
	cmd.Flags().StringVar(to, name, value, usage)
	CompleteWords(cmd, name)
}

// ChoiceFlag adds a flag that takes one of a few words; the first is the default.
func ChoiceFlag(cmd *cobra.Command, name, usage string, words ...string) *string {
	c := &choice{words[0], words}
	cmd.Flags().Var(c, name, usage+": "+strings.Join(words, " or "))
	CompleteWords(cmd, name, words...)
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

// TimeoutFlag adds the flag that bounds a wait.
func TimeoutFlag(cmd *cobra.Command, value time.Duration, usage string) *time.Duration {
	timeout := cmd.Flags().Duration("timeout", value, usage)
	CompleteWords(cmd, "timeout")
	return timeout
}

// CompleteWords has shells complete these words for a flag, and no files.
func CompleteWords(cmd *cobra.Command, flag string, words ...string) {
	// It fails only for a flag that does not exist, which a test would find.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}
