// Package ca_test runs certificate authorities as they are in the world, and holds a gate to their certificates and lists.
package ca_test
