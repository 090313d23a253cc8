// Package deploy_test holds the files of deploy, .goreleaser.yaml and the workflows
// to the programs that will read them. It is a module of its own because those
// programs' libraries are large, and pgwicket needs none of them.
package deploy_test
