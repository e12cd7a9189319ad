#!/bin/sh
export PATH="/usr/bin:/bin"
