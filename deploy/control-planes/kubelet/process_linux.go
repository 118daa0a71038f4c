package main

import "syscall"

// processGroup makes a process the leader of a group, and has the kernel end it if the kubelet is killed outright.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
