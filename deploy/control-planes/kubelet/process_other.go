//go:build !linux

package main

import "syscall"

// processGroup makes a process the leader of a group.
func processGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
