# What `scripts/package` packs: the node, the command line, the plugin's jar and what describes them.
include(GNUInstallDirs)
install(TARGETS bigcastd bigcast RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES docs/bigcastd.toml DESTINATION ${CMAKE_INSTALL_DATADIR}/bigcast)
install(FILES server/systemd/bigcastd.service DESTINATION lib/systemd/system)
# What the command line says of itself.
set(told ${CMAKE_BINARY_DIR}/generated/told)
add_custom_command(
  OUTPUT ${told}/bigcast.1
  COMMAND ${CMAKE_COMMAND} -E make_directory ${told}
  COMMAND bigcast man > ${told}/bigcast.1
  COMMAND bigcast completion bash > ${told}/bigcast
  COMMAND bigcast completion zsh > ${told}/_bigcast
  COMMAND bigcast completion fish > ${told}/bigcast.fish
  VERBATIM)
if(NOT BIGCAST_SANITIZE)
  add_custom_target(bigcast_told ALL DEPENDS ${told}/bigcast.1)
endif()
install(FILES ${told}/bigcast.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${told}/bigcast DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${told}/_bigcast DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${told}/bigcast.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
if(BIGCAST_SPARK_PLUGIN)
  install(FILES ${CMAKE_BINARY_DIR}/bigcast-spark-plugin.jar DESTINATION ${CMAKE_INSTALL_DATADIR}/bigcast)
endif()

set(CPACK_PACKAGE_NAME bigcast)
set(CPACK_PACKAGE_CONTACT "The Bigcast developers <bigcast@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Spark broadcasts and large objects in a memory cache")
set(CPACK_PACKAGE_DESCRIPTION 
  "Nodes keep large Spark broadcasts and other big objects as chunks in memory
and on disk, off the driver; each host pulls one copy. This package has the
node bigcastd as a service, the command line bigcast and the jar of the Spark
plugin.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION database)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON) # its dependencies: the libraries that the programs link
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "")
set(CPACK_DEBIAN_PACKAGE_DEPENDS passwd) # useradd
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${CMAKE_SOURCE_DIR}/cmake/debian/postinst ${CMAKE_SOURCE_DIR}/cmake/debian/prerm
  ${CMAKE_SOURCE_DIR}/cmake/debian/postrm)
set(CPACK_PACKAGE_FILE_NAME "bigcast-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR}")
include(CPack)
